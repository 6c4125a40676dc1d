"""The last line of every command: the release that serves now."""

from pathlib import Path

from stack.config import project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner


def text(runner: Runner, root: Path) -> str:
    """Return the last line, which names the live release, even if `.env` is broken."""
    try:
        loaded = project.load(root, is_lenient=True)
    except (Failure, OSError):
        return "live: unknown, because .env cannot be read"
    try:
        return observation.what_serves(runner, loaded)
    except (Failure, OSError) as error:
        reason = error.observation if isinstance(error, Failure) else str(error)
        return f"live: unknown, because {reason}"
