"""ETags of items, and what a client's conditions say about them (RFC 9110, 8.8.3 and 13.1).

A condition is one header line: nginx refuses a second one with 400.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

TAG = '(?:W/)?"[!#-~]*"'
# Commas may stand alone: a list has to be read with its empty elements.
CONDITION = rf"^(?:\*|[, \t]*{TAG}(?:[ \t]*,[, \t]*{TAG})*[, \t]*)$"
EACH_TAG = re.compile(TAG)
OURS = re.compile('"([0-9a-f]{1,14})"')  # 14 digits of microseconds end in the year 4253
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def etag(row: Mapping[str, datetime]) -> str:
    """Return the strong ETag of a row: when it was last written, which no two of its states share."""
    return f'"{(row["updated_at"] - EPOCH) // MICROSECOND:x}"'


def check_condition(condition: str | None) -> str | None:
    """Return If-Match as it is; raise ValueError, with the form it should have, for what cannot be read."""
    if condition is not None and not re.fullmatch(CONDITION, condition):
        raise ValueError('must be * or ETags in double quotes, like "64d7a0c5e2f31"')
    return condition


def is_listed(tag: str, condition: str | None) -> bool:
    """Tell whether If-None-Match names this tag; a weak form of it is as good, and what is unreadable names nothing."""
    if condition is None:
        return False
    return condition.strip() == "*" or tag in (
        found.removeprefix("W/") for found in EACH_TAG.findall(condition)
    )


def states(condition: str | None) -> list[datetime] | None:
    """Return which states of a row If-Match accepts, None for any; a weak tag stands for none."""
    if condition is None or condition.strip() == "*":
        return None
    ours = (OURS.fullmatch(found) for found in EACH_TAG.findall(condition))
    return [EPOCH + int(match[1], 16) * MICROSECOND for match in ours if match]
