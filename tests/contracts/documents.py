"""Parses the pages of the project: headings, anchors, fenced blocks and their commands."""

import re
import shlex
from pathlib import Path

from tests.contracts.tree import files, text

README = Path("README.md")
RUNBOOK = Path("docs/runbook.md")
COMMANDS = Path("docs/commands.md")
OPERATING = Path("docs/operating.md")
CHECKLIST = Path("docs/production-checklist.md")
DOCUMENTS = [path for path in files("**/*.md") if path.parts[0] != "tests"]


def without_fences(source: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """Return GitHub's anchor for a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {
        anchor(heading)
        for heading in re.findall(r"^#{1,6} (.+)$", without_fences(text(path)), re.MULTILINE)
    }


def entries() -> dict[str, list[str]]:
    """Map the anchor of each `##` section of the runbook to the headings in this section."""
    sections = re.split(r"^## ", without_fences(text(RUNBOOK)), flags=re.MULTILINE)[1:]
    return {anchor(s.splitlines()[0]): re.findall(r"^### (.+)$", s, re.MULTILINE) for s in sections}


def fences(path: Path) -> list[tuple[str, str, str]]:
    """Return each fenced block: the `##` heading above it, its language and its text."""
    blocks = []
    for section in re.split(r"^## ", "\n" + text(path), flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", section, re.M | re.S):
            blocks.append((heading, match[2], match[3]))
    return blocks


def commands(path: Path) -> list[str]:
    """Return the commands of a page's shell blocks, without comments; join continued lines."""
    shell = [block for _, language, block in fences(path) if language in {"sh", "console"}]
    joined = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    return [
        line.strip().removeprefix("$ ")
        for line in joined
        if line.strip() and not line.strip().startswith("#")
    ]


def words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)
