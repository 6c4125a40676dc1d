"""A partner note names an existing file and a word of that file.

Two places that must change together name each other in a note of one line, in one of these forms:

    Partner: NAME in PATH
    Partner: PATH

PATH is relative to the checkout. NAME is a word of that file, such as a constant or a directive.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.tree import ROOT, files, lines

FOLDERS = ("api", "backup", "counter", "nginx", "postgres", "redis", "scripts", "sink", "worker")
PRODUCT = ["*", *(f"{folder}/**" for folder in FOLDERS)]
WORD = re.compile(r"\bpartners?\b", re.IGNORECASE)
NOTE = re.compile(r"[Pp]artner: (?:(?P<name>[\w.-]+) in )?(?P<path>[\w./-]*\w)")


def notes(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each note in a line of text; the name may be empty.

    Raises:
        ValueError: if the word `partner` occurs outside a note.
    """
    for word in WORD.finditer(text):
        note = NOTE.match(text, word.start())
        if not note:
            raise ValueError(f"not of the form `Partner: NAME in PATH`: {text.strip()}")
        yield note["name"] or "", note["path"]


def fault(name: str, path: str) -> str:
    """Return the reason why a note is wrong, or an empty string."""
    if not (ROOT / path).is_file():
        return f"there is no file {path}"
    content = "\n".join(lines(Path(path)))
    if name and not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", content):
        return f"{path} does not contain {name}"
    return ""


def faults() -> Iterator[str]:
    """Yield each wrong note with its place."""
    for file in files(*PRODUCT):
        if file.suffix in {".md", ".lock"}:
            continue
        for number, text in enumerate(lines(file), 1):
            try:
                reasons = [fault(name, path) for name, path in notes(text)]
            except ValueError as error:
                reasons = [str(error)]
            yield from (f"{file}:{number}: {reason}" for reason in reasons if reason)


def test_every_partner_exists() -> None:
    assert list(faults()) == []


def test_there_are_notes_to_check() -> None:
    noted = [file for file in files(*PRODUCT) if NOTE.search("\n".join(lines(file)))]
    assert len(noted) > 15


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("# Partner: PORT in backup/health.py", [("PORT", "backup/health.py")]),
        ("x = 1  # partner: backup/health.py.", [("", "backup/health.py")]),
        (
            "# Partner: a_b in x/y.conf; partner: c.d-e in z",
            [("a_b", "x/y.conf"), ("c.d-e", "z")],
        ),
        ("# nothing to change together", []),
    ],
)
def test_a_note_is_read(text: str, noted: list[tuple[str, str]]) -> None:
    assert list(notes(text)) == noted


@pytest.mark.parametrize(
    "text",
    [
        "# partner of max_wal_size",
        "# Partners: A above it",
        "Partner:",
    ],
)
def test_a_note_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        list(notes(text))


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("PORT", "backup/health.py", ""),
        ("", "backup/health.py", ""),
        ("POR", "backup/health.py", "backup/health.py does not contain POR"),
        ("PORT", "backup/probe.py", "there is no file backup/probe.py"),
        ("", "backup", "there is no file backup"),
    ],
)
def test_a_note_that_names_nothing_is_found(name: str, path: str, reason: str) -> None:
    assert fault(name, path) == reason
