"""Reads, checks and completes `.env`; it knows nothing of containers."""

import re
from dataclasses import dataclass
from pathlib import Path

from stack.failure import Failure

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RUNBOOK = "boot-refused-by-the-configuration"


@dataclass(frozen=True)
class Line:
    """One `KEY=value` of `.env`, with the number of its line, counted from 1."""

    number: int
    key: str
    value: str


def parse(text: str) -> list[Line]:
    """Return the assignments of an `.env` file.

    Raises:
        Failure: naming every bad line at once, and no value.
    """
    lines, faults, numbers = [], [], dict[str, int]()
    if "\r" in text:
        faults.append("it has Windows line endings (CRLF), which would become part of each value")
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = stripped.partition("=")
        if not equals or not _KEY.fullmatch(key):
            faults.append(f"line {number} is not KEY=value")
        elif key in numbers:
            faults.append(f"{key} is set twice, in lines {numbers[key]} and {number}")
        else:
            numbers[key] = number
            lines.append(Line(number, key, _unquoted(value)))
    if text and not text.endswith("\n"):
        faults.append("its last line does not end with a newline, so the file may be cut off")
    if faults:
        raise Failure(
            "; ".join([".env cannot be used", *faults]),
            hints=["correct these lines; .env.example shows and explains every key"],
            runbook=RUNBOOK,
        )
    return lines


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return re.sub(r"\s+#.*$", "", value).strip()


def known_keys(example: Path) -> set[str]:
    """Return every key of `.env.example`, commented out or not."""
    text = example.read_text(encoding="utf-8")
    return set(re.findall(r"^#?\s?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))


def check_keys(lines: list[Line], known: set[str]) -> None:
    """Refuse keys that nothing reads: a misspelt key would be ignored silently."""
    unknown = [line for line in lines if line.key not in known]
    if unknown:
        named = ", ".join(f"{line.key} (line {line.number})" for line in unknown)
        raise Failure(
            f".env has keys that nothing reads: {named}",
            hints=["compare the spelling with .env.example, or delete them"],
            runbook=RUNBOOK,
        )


def check_missing(lines: list[Line], example: Path) -> None:
    """Refuse a file that lacks keys of `.env.example`: the file was cut off, or is older."""
    shown = {line.key for line in parse(example.read_text(encoding="utf-8"))}
    missing = sorted(shown - {line.key for line in lines})
    if missing:
        raise Failure(
            f".env lacks {', '.join(missing)}: it was cut off, or is from an older version",
            hints=[
                "take the lines, with their comments, from .env.example; "
                "an empty value means the default"
            ],
            runbook=RUNBOOK,
        )


def with_values(text: str, values: dict[str, str]) -> str:
    """Return the text of `.env` with these keys set.

    A value replaces the line of its key, else the comment that shows the key, else it is appended.
    """
    lines = text.splitlines()
    for key, value in values.items():
        places = [n for n, line in enumerate(lines) if line.lstrip().startswith(f"{key}=")]
        places += [n for n, line in enumerate(lines) if line.startswith(f"# {key}=")]
        if places:
            lines[places[0]] = f"{key}={value}"
        else:
            lines.append(f"{key}={value}")
    return "\n".join(lines) + "\n"
