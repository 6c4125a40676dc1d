"""Splits a line of `docker compose logs` into time, service, level, request id and message."""

import json
import re
from dataclasses import dataclass
from typing import Any

# The prefix that Compose writes, and the time that `--timestamps` puts before the text.
_PREFIX = re.compile(r"(?P<service>\S+?)(?:-\d+)?\s+\| (?P<text>.*)", re.DOTALL)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)Z ")
# Partner: log_line_prefix in postgres/postgresql.conf.
_POSTGRES = re.compile(
    r"\S+ \S+ \S+ \[\d+\] app=(?P<app>.*?) db=\S* user=\S* (?P<level>[A-Z]+\d?): +(?P<message>.*)"
)
_REDIS = re.compile(r"\d+:\w \d+ \w+ \d{4} [\d:.]+ (?P<level>[-.*#]) (?P<message>.*)")
_NGINX = re.compile(r"\d{4}/\d\d/\d\d [\d:]+ \[(?P<level>\w+)\] (?P<message>.*)")
_LEVELS = {
    "WARNING": "WARN",
    "CRITICAL": "CRIT",
    "LOG": "INFO",
    ".": "DEBUG",
    "-": "DEBUG",
    "*": "INFO",
    "#": "WARN",
}
# These fields have a column, or have the same value in every line of a service.
_IDENTITY = {
    "ts",
    "timestamp",
    "level",
    "logger",
    "service",
    "slot",
    "release",
    "request_id",
    "message",
    "exc_info",
}
_REQUEST = ("method", "path", "status")


@dataclass(frozen=True)
class LogLine:
    """The columns of a line; a field that the line does not have is empty.

    Args:
        time: UTC, to the millisecond, as 2026-11-21T10:00:00.123.
    """

    time: str
    service: str
    level: str
    request: str
    message: str


def parse(line: str) -> LogLine:
    """Split a line of any service."""
    prefix = _PREFIX.fullmatch(line)
    service, text = (prefix["service"], prefix["text"]) if prefix else ("", line)
    stamp = _STAMP.match(text)
    time = _milliseconds(stamp[1]) if stamp else ""
    text = text[stamp.end() :] if stamp else text
    entry = _json_object(text)
    if entry is not None:
        return LogLine(
            _milliseconds(str(entry["ts"]).partition("+")[0]) if entry.get("ts") else time,
            service,
            _level(str(entry.get("level") or "")),
            str(entry.get("request_id") or ""),
            _message(entry),
        )
    for form in (_POSTGRES, _REDIS, _NGINX):
        match = form.fullmatch(text)
        if match:
            application = match.groupdict().get("app")
            message = match["message"] + (f" app={application}" if application else "")
            return LogLine(time, service, _level(match["level"]), "", message)
    return LogLine(time, service, "", "", text)


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None  # Postgres, Redis and a traceback have forms of their own
    return entry if isinstance(entry, dict) else None


def _milliseconds(stamp: str) -> str:
    seconds, _, fraction = stamp.partition(".")
    return f"{seconds}.{fraction[:3]:0<3}"


def _level(word: str) -> str:
    return _LEVELS.get(word.upper(), word.upper())


def _message(entry: dict[str, Any]) -> str:
    """Return the request or the message, followed by the line's own fields."""
    if all(key in entry for key in _REQUEST):
        words, shown = [str(entry[key]) for key in _REQUEST], {*_REQUEST, "action"}
    else:
        words = [str(entry.get("message") or entry.get("action") or "")]
        shown = {"action"}
    error = str(entry.get("exc_info") or "").strip()
    if error:
        words.append(f"({error.splitlines()[-1]})")
    for key, value in entry.items():
        if key not in _IDENTITY | shown and value not in ("", None, [], {}):
            words.append(f"{key}={value}")
    return " ".join(words)
