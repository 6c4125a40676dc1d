"""Reads the compose files as data and leaves their variables unexpanded."""

import re
from typing import Any

import yaml

from tests.contracts.tree import text

FILES = ("compose.yaml", "compose.prod.yaml", "compose.dev.yaml")
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)(?::([-?])([^}]*))?\}")


class Loader(yaml.SafeLoader):
    """A YAML loader that accepts Compose's tag `!override`."""


def _override(loader: Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


Loader.add_constructor("!override", _override)


def load(name: str = "compose.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(text(name), Loader)  # noqa: S506 - based on SafeLoader
    return loaded


COMPOSE = load()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# The services of all compose files: every service must follow the same rules.
EVERY_SERVICE = {
    name: s for file in FILES[1:] for name, s in load(file)["services"].items()
} | SERVICES
APP_SERVICES = ("api-blue", "worker-blue", "api-green", "worker-green", "migrate")


def seconds(duration: str) -> float:
    """Convert a duration of Compose or nginx (`40s`, `500ms`, `1m`) to seconds."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration)
    assert match, f"{duration} is not a duration with a unit"
    return int(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def size_bytes(size: str) -> int:
    """Convert `16m`, `40mb` or `1048576` to bytes."""
    match = re.fullmatch(r"(\d+)([kmg]?)b?", size.lower())
    assert match, f"{size} is not a size"
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[match[2]]


def variables(source: str) -> list[tuple[str, str | None]]:
    """Return the name of each ${VAR} in a text, with its default or None."""
    return [(m[1], m[3] if m[2] == "-" else None) for m in VARIABLE.finditer(source)]


def defaulted(value: object) -> str:
    """Return a value of the compose file with each variable replaced by its default."""
    return VARIABLE.sub(lambda m: m[3] if m[2] == "-" else "", str(value))
