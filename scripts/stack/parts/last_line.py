"""The last line of every command: what serves now."""

from pathlib import Path

from stack.config import project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner


def text(runner: Runner, root: Path) -> str:
    """Return what serves now, also where `.env` is the thing that is broken."""
    try:
        return observation.what_serves(runner, project.load(root))
    except (Failure, OSError):
        return "live: unknown, because .env cannot be read"
