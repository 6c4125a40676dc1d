"""ETags of items, and the conditions of If-Match and If-None-Match (RFC 9110, 8.8.3 and 13.1).

A condition is a single header line: nginx refuses a second line with 400.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

TAG = '(?:W/)?"[!#-~]*"'
# RFC 9110 allows empty elements in a list.
CONDITION = rf"^(?:\*|[, \t]*{TAG}(?:[ \t]*,[, \t]*{TAG})*[, \t]*)$"
EACH_TAG = re.compile(TAG)
OURS = re.compile('"([0-9a-f]{1,14})"')  # 14 digits of microseconds end in the year 4253
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def etag(row: Mapping[str, datetime]) -> str:
    """Return the strong ETag of a row: the time of its last change, which no other state has."""
    return f'"{(row["updated_at"] - EPOCH) // MICROSECOND:x}"'


def check_condition(condition: str | None) -> str | None:
    """Return If-Match unchanged; raise ValueError, with the expected form, if it is malformed."""
    if condition is not None and not re.fullmatch(CONDITION, condition):
        raise ValueError('must be * or ETags in double quotes, like "64d7a0c5e2f31"')
    return condition


def is_listed(tag: str, condition: str | None) -> bool:
    """Tell whether If-None-Match names this tag, strong or weak; a malformed header names none."""
    if condition is None:
        return False
    tags = (listed.removeprefix("W/") for listed in EACH_TAG.findall(condition))
    return condition.strip() == "*" or tag in tags


def states(condition: str | None) -> list[datetime] | None:
    """Return the states of a row that If-Match accepts, or None for any; weak tags never match."""
    if condition is None or condition.strip() == "*":
        return None
    ours = (OURS.fullmatch(tag) for tag in EACH_TAG.findall(condition))
    return [EPOCH + int(match[1], 16) * MICROSECOND for match in ours if match]
