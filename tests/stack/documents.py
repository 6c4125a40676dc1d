"""Extracts the commands of the documentation pages, so that the tests run these commands."""

import re
from pathlib import Path

from tests.stack.harness import ROOT

RUNBOOK = ROOT / "docs/runbook.md"
README = ROOT / "README.md"
COMMANDS = ROOT / "docs/commands.md"
TOUR = ROOT / "docs/tour.md"
OPERATING = ROOT / "docs/operating.md"
PARTS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Verification", "Rollback")


def blocks(text: str) -> list[str]:
    """Return the fenced `sh` blocks of a text, in order."""
    return [
        match.strip() for match in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


def sections(text: str, level: int) -> dict[str, str]:
    """Return the text under each heading of a level."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def incidents(path: Path = RUNBOOK) -> dict[str, dict[str, str]]:
    """Return the runbook entries that have a Mitigation, by anchor: the text of each part."""
    entries = {
        anchor(name): sections(text, 3)
        for name, text in sections(path.read_text(encoding="utf-8"), 2).items()
    }
    return {name: parts for name, parts in entries.items() if "Mitigation" in parts}
