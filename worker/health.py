"""The container's health check: is the worker's event loop still turning? Standard library only."""

import sys
import time
from pathlib import Path

HEARTBEAT_FILE = Path("/tmp/worker.heartbeat")  # noqa: S108  the container's own tmpfs
BEAT_SECONDS = 3.0
MAX_AGE_SECONDS = 20.0  # six beats: a loop blocked for so long runs no job either


def problem(path: Path = HEARTBEAT_FILE, now: float | None = None) -> str | None:
    """Return what is wrong with the heartbeat, or None."""
    try:
        age_seconds = (time.time() if now is None else now) - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {error}"
    if age_seconds > MAX_AGE_SECONDS:
        return f"last heartbeat {age_seconds:.0f} s ago, more than {MAX_AGE_SECONDS:.0f} s"
    return None


def main() -> int:
    found = problem()
    sys.stdout.write(f"{found or 'beating'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
