"""Reads, checks and completes `.env`; it knows nothing of containers.

It refuses a line that Compose would read differently, so that a plain `docker compose` has the same
values as the scripts. tests/scripts/config/test_corpus_and_compose.py compares the two.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stack.config.keys import NEEDED
from stack.failure import Failure

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"(?P<head>[ \t]*(?P<key>[A-Za-z_][A-Za-z0-9_]*)=[ \t]*)(?P<rest>.*)")
RUNBOOK = "boot-refused-by-the-configuration"
BOM = "\ufeff"
_FOLDER = "Compose reads the folder as a file: put # before the line, or name compose.yaml"


@dataclass(frozen=True)
class Line:
    """One `KEY=value` of `.env`, with the number of its line, counted from 1."""

    number: int
    key: str
    value: str


def decode(content: bytes) -> str:
    """Return the text of an `.env` file.

    Raises:
        Failure: naming the first line that is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise Failure(
            f".env cannot be used; line {number} has a byte that is not UTF-8",
            hints=["write the line again, or convert the file: iconv -f latin1 -t utf-8"],
            runbook=RUNBOOK,
        ) from None


def parse(text: str) -> list[Line]:
    """Return the assignments of an `.env` file.

    Raises:
        Failure: naming every bad line at once, and no value.
    """
    lines, faults, numbers = [], [], dict[str, int]()
    if text.startswith(BOM):
        faults.append("it begins with a byte order mark (BOM): save it as UTF-8 without BOM")
        text = text.removeprefix(BOM)
    if "\r" in text:
        faults.append("it has Windows line endings (CRLF), which would become part of each value")
    for number, raw in enumerate(text.split("\n"), 1):  # Compose splits lines only at \n
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, _ = stripped.partition("=")
        if not equals or not _KEY.fullmatch(key):
            faults.append(f"line {number} is not KEY=value")
        elif key in numbers:
            faults.append(f"{key} is set twice, in lines {numbers[key]} and {number}")
        else:
            numbers[key] = number
            try:
                value, _ = _read(stripped.partition("=")[2].strip())
            except ValueError as error:
                faults.append(f"{key} (line {number}) {error}")
            else:
                lines.append(Line(number, key, value))
                if key == "COMPOSE_FILE" and not value:
                    faults.append(f"{key} (line {number}) is empty, and {_FOLDER}")
    if text and not text.endswith("\n"):
        faults.append("its last line does not end with a newline, so the file may be cut off")
    if faults:
        raise Failure(
            "; ".join([".env cannot be used", *faults]),
            hints=["correct these lines; .env.example shows and explains every key"],
            runbook=RUNBOOK,
        )
    return lines


def _read(text: str) -> tuple[str, str]:
    """Return the value and the text after it: a comment or nothing.

    Raises:
        ValueError: with the rest of a sentence, for a text that Compose reads differently.
    """
    if any(character != "\t" and not character.isprintable() for character in text):
        raise ValueError("has a control character or a space that is no plain space: delete it")
    if text[:1] not in {"'", '"'}:
        return _read_plain(text)
    quote = text[0]
    end = text.find(quote, 1)
    if end < 0:
        raise ValueError("has no closing quote: add it, or delete the first quote")
    value, rest = text[1:end], text[end + 1 :]
    if value.endswith("\\"):
        raise ValueError("has a backslash before a quote, which each reader parses differently")
    if quote == '"' and "\\" in value:
        raise ValueError("has a backslash in double quotes: write single quotes")
    if quote == '"' and "$" in value:
        raise ValueError("has a $ in double quotes, which Compose replaces: write single quotes")
    if rest and not re.fullmatch(r" +(#.*)?", rest):
        raise ValueError("has text after its closing quote: only ' # a comment' may follow")
    return value, rest


def _read_plain(text: str) -> tuple[str, str]:
    if text.startswith("#"):
        raise ValueError("begins with #: write the comment above the line, or the value in quotes")
    value, mark, comment = text.partition(" #")
    rest = value[len(value.rstrip()) :] + mark + comment
    value = value.rstrip()
    if "\t#" in value:
        raise ValueError("has a tab before #: write a space")
    if "$" in value:
        raise ValueError("has a $, which Compose replaces: write single quotes around the value")
    if value.startswith("~"):
        raise ValueError("begins with ~, which no script replaces: write the whole path")
    return value, rest


def known_keys(example: Path) -> set[str]:
    """Return every key of `.env.example`, commented out or not."""
    return set(_keys_in(example.read_text(encoding="utf-8")))


@lru_cache(maxsize=8)  # a command reads the file with each load of `.env`
def _keys_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"^#?\s?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))


def unknown_keys(lines: list[Line], known: set[str]) -> list[str]:
    """Return the keys that nothing reads, each with its line."""
    return [f"{line.key} (line {line.number})" for line in lines if line.key not in known]


def check_keys(lines: list[Line], known: set[str]) -> None:
    """Refuse keys that nothing reads: a misspelt key would be ignored silently."""
    unknown = unknown_keys(lines, known)
    if unknown:
        raise Failure(
            f".env has keys that nothing reads: {', '.join(unknown)}",
            hints=["compare the spelling with .env.example, or delete them"],
            runbook=RUNBOOK,
        )


def check_missing(lines: list[Line]) -> None:
    """Refuse a file that lacks a key that identifies the stack: the file was cut off.

    Any other missing key has its default: a newer version of the scripts may have added the key.
    """
    missing = sorted(set(NEEDED) - {line.key for line in lines})
    if missing:
        raise Failure(
            f".env lacks {', '.join(missing)}: it was cut off",
            hints=[
                "take the lines, with their comments, from .env.example; "
                "an empty value means the default"
            ],
            runbook=RUNBOOK,
        )


def quoted(value: str) -> str:
    """Return a value as it is written in `.env`, in quotes where it needs them.

    Raises:
        ValueError: if no quoted form of the value is parsed as the same value.
    """
    for form in (value, f"'{value}'", f'"{value}"'):
        try:
            if form == form.strip() and _read(form) == (value, ""):
                return form
        except ValueError:
            continue
    raise ValueError("a value with both kinds of quotes or a line end cannot be written to .env")


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` with these keys set; every other character stays.

    A new value replaces the value in the line of its key, and keeps the line's comment. Without
    such a line, it replaces the comment that shows the key, or else a new line is added.
    """
    lines = text.splitlines()
    for key, value in values.items():
        places = [n for n, line in enumerate(lines) if line.lstrip().startswith(f"{key}=")]
        places += [n for n, line in enumerate(lines) if line.startswith(f"# {key}=")]
        if places:
            lines[places[0]] = _with_value(lines[places[0]], key, value)
        else:
            lines.append(f"{key}={quoted(value)}")
    return "\n".join(lines) + "\n"


def _with_value(line: str, key: str, value: str) -> str:
    assignment = _ASSIGNMENT.fullmatch(line)
    if not assignment:
        return f"{key}={quoted(value)}"  # a comment that shows the key
    former, comment = _read(assignment["rest"].strip())
    if former == value:
        return line
    written = quoted(value) or ("''" if comment else "")  # else the comment would be the value
    return f"{assignment['head'].rstrip()}{written}{comment}"
