"""The definition of a service: its part of the compose files, its mounted files and its image."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project
from stack.runner import Runner

# A container mounts these folders of the checkout and reads them at its start (compose.yaml).
FOLDERS = {"postgres": ("postgres",), "backup": ("postgres", "backup"), "redis": ("redis",)}
LEFT_OUT = "__pycache__"


def of_services(runner: Runner, project: Project, names: Iterable[str]) -> dict[str, str]:
    """Return a hash of each service's definition; empty if Compose refuses its files.

    The hash changes with the compose files, the values of `.env` in them, the mounted folders, and
    the image of the service's name.
    """
    shown = runner.read(engine.compose("config", "--format", "json", may_fail=True))
    try:
        services = json.loads(shown.out)["services"]
    except (ValueError, KeyError, TypeError):
        return {}
    present = [name for name in names if name in services]
    folders = {folder for name in present for folder in FOLDERS.get(name, ())}
    contents = {folder: _hash_files(project.root / folder) for folder in folders}
    return {
        name: _hash(runner, services[name], [contents[each] for each in FOLDERS.get(name, ())])
        for name in present
    }


def _hash(runner: Runner, facts: dict[str, object], contents: list[bytes]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    image = runner.read(engine.inspect_image(str(facts.get("image", "")))).out.strip()
    digest.update(image.encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:16]


def _hash_files(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and LEFT_OUT not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
