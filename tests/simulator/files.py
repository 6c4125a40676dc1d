"""The simulated host's files: a small checkout, its edits, and copies of all files."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stack.config import environment

from tests.simulator.containers import GOOD
from tests.simulator.paths import read

ROOT = Path(__file__).resolve().parents[2]
FIRST = "2026_01_01_0000"
VERSIONS = Path("api/migrations/versions")
KEY = re.compile(r"(?:# )?[A-Z][A-Z0-9_]*=")
TRAIT = re.compile(r'^TRAIT = "(.*)"$', re.MULTILINE)


def make_checkout(root: Path) -> None:
    """Write small sources of a release, with the real service.toml and .env.example."""
    (root / VERSIONS).mkdir(parents=True)
    shutil.copy(ROOT / "service.toml", root)
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines(keepends=True)
    contents = {
        # Without comments, which the scripts would parse again and again.
        ".env.example": "".join(line for line in lines if KEY.match(line)),
        "Dockerfile": "FROM scratch\n",
        "nginx/entrypoint.sh": "# reads settings.env\n",
        "nginx/conf.d/a.conf": "# as it should be\n",
        "compose.yaml": "name: slipway\n",
        "postgres/entrypoint.sh": "",
        "redis/redis.conf": "",
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    for folder in ("nginx", "postgres", "redis"):
        for path in (root / folder, *(root / folder).rglob("*")):
            path.chmod(0o755)
    write_sources(root, 1, GOOD)
    add_migration(root, "pre", FIRST)


def write_sources(root: Path, variant: int, trait: str) -> None:
    """Change the service's code, and with it the name of the checkout's release."""
    text = f'VARIANT = {variant}\nTRAIT = "{trait}"\n'
    (root / "api/main.py").write_text(text, encoding="utf-8")


def trait_of(root: Path) -> str:
    """Return the behaviour of the checkout's release."""
    shown = TRAIT.search((root / "api/main.py").read_text(encoding="utf-8"))
    return shown[1] if shown else GOOD


def add_migration(root: Path, phase: str, revision: str) -> None:
    """Write a migration that follows the newest one."""
    former = sorted(path.name[:15] for path in (root / VERSIONS).glob("*.py"))
    parent = f'"{former[-1]}"' if former else "None"
    text = f'revision = "{revision}"\ndown_revision = {parent}\n'
    (root / VERSIONS / f"{revision}_{phase}_change.py").write_text(text, encoding="utf-8")


def set_value(root: Path, key: str, value: str) -> None:
    """Edit one key of `.env`."""
    file = root / ".env"
    text = file.read_text(encoding="utf-8")
    file.write_text(environment.with_values(text, {key: value}), encoding="utf-8")


@dataclass(frozen=True)
class Files:
    """A copy of every file below a folder: content and mode, or the target of a link."""

    entries: dict[str, tuple[str, bytes, int]]


def copy_of(root: Path) -> Files:
    """Read every file below a folder."""
    entries: dict[str, tuple[str, bytes, int]] = {}
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as listed:
            for entry in listed:
                path = entry.path
                if entry.is_symlink():
                    entries[path] = ("link", os.readlink(path).encode(), 0)
                elif entry.is_dir():
                    entries[path] = ("folder", b"", os.stat(path).st_mode & 0o7777)
                    folders.append(path)
                else:
                    entries[path] = ("file", read(path), os.stat(path).st_mode & 0o7777)
    return Files(entries)


def content_of(path: str) -> bytes | None:
    """Return what a file holds; None if there is no file."""
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def put_back(root: Path, files: Files) -> None:
    """Restore a folder from its copy; change only files that differ."""
    present = copy_of(root).entries
    for path in sorted(present.keys() - files.entries.keys(), reverse=True):
        remove(Path(path))
    for path, entry in files.entries.items():
        if present.get(path) == entry:
            continue
        kind, content, mode = entry
        file = Path(path)
        if path in present and (kind != "file" or present[path][0] != "file"):
            remove(file)
        if kind == "folder":
            file.mkdir()
        elif kind == "link":
            file.symlink_to(content.decode())
            continue
        else:
            file.write_bytes(content)
        file.chmod(mode)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
