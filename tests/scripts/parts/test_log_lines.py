"""Tests the fields that are parsed from log lines of each program."""

import json

import pytest
from stack.parts.log_lines import LogLine, parse

AT = "2026-11-21T10:00:00.123"
ENTRY = {"ts": f"{AT}+00:00", "level": "INFO", "service": "api", "slot": "blue", "release": "r-1"}


def entry(**fields: object) -> str:
    return f"api-blue-1  | {json.dumps({**ENTRY, **fields})}"


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("api-blue-1  | " + "[" * 100_000, LogLine("", "api-blue", "", "", "[" * 100_000)),
        (
            entry(message="up", action="started", request_id=None),
            LogLine(AT, "api-blue", "INFO", "", "up"),
        ),
        (
            entry(
                message="slow",
                level="WARNING",
                request_id="r" * 32,
                rows=3,
                host="",
                failed={},
                count=0,
            ),
            LogLine(AT, "api-blue", "WARN", "r" * 32, "slow rows=3 count=0"),
        ),
        (
            entry(action="request", method="GET", path="/a", status=200, seconds=0.01),
            LogLine(AT, "api-blue", "INFO", "", "GET /a 200 seconds=0.01"),
        ),
        (
            entry(message="request failed", exc_info="Traceback:\n  file\nKeyError: 'a'"),
            LogLine(AT, "api-blue", "INFO", "", "request failed (KeyError: 'a')"),
        ),
        (
            "nginx  | 2026-11-21T10:00:00.1Z plain text",
            LogLine("2026-11-21T10:00:00.100", "nginx", "", "", "plain text"),
        ),
        (
            "postgres-1  | 2026-11-21T10:00:00.123456789Z 2026-11-21 10:00:00.123 UTC [9]"
            " app= db= user= LOG:  checkpoint starting: time",
            LogLine(AT, "postgres", "INFO", "", "checkpoint starting: time"),
        ),
        (
            "postgres-1  | 2026-11-21 10:00:00.123 UTC [9] app=slipway.worker db=slipway"
            " user=worker FATAL:  terminating connection",
            LogLine("", "postgres", "FATAL", "", "terminating connection app=slipway.worker"),
        ),
        (
            "redis-1  | 1:M 21 Nov 2026 10:00:00.123 * Ready to accept connections tcp",
            LogLine("", "redis", "INFO", "", "Ready to accept connections tcp"),
        ),
        (
            "nginx-1  | 2026/11/21 10:00:00 [error] 7#7: *1 connect() failed",
            LogLine("", "nginx", "ERROR", "", "7#7: *1 connect() failed"),
        ),
        ('api-blue-1  | ["a list"]', LogLine("", "api-blue", "", "", '["a list"]')),
        ("api-blue-1  | {cut off", LogLine("", "api-blue", "", "", "{cut off")),
        (
            'api-blue-1  | {"ts": 5, "level": 1, "message": {"a": 1}}',
            LogLine("5.000", "api-blue", "1", "", "{'a': 1}"),
        ),
        ("no prefix at all", LogLine("", "", "", "", "no prefix at all")),
        ("", LogLine("", "", "", "", "")),
    ],
)
def test_a_line_is_read_into_its_columns(line: str, read: LogLine) -> None:
    assert parse(line) == read
