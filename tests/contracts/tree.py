"""Lists and reads the files of the checkout that git does not ignore."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent


def files(*patterns: str) -> list[Path]:
    """Return tracked and new files, relative to ROOT; `**/*.py` also matches in ROOT itself."""
    pathspecs = [f":(glob){pattern}" for pattern in patterns]
    argv = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *pathspecs,
    ]
    listing = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    return sorted(
        Path(name) for name in set(listing.split("\0")) if name and (ROOT / name).is_file()
    )


def text(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def lines(path: Path) -> list[str]:
    """Return a file's lines, or no lines if the file is not text."""
    try:
        return text(path).splitlines()
    except UnicodeDecodeError:
        return []


def nodes(*patterns: str) -> Iterator[tuple[Path, ast.AST]]:
    """Yield each matching file with each node of its syntax tree."""
    for path in files(*patterns):
        for node in ast.walk(ast.parse(text(path), str(path))):
            yield path, node
