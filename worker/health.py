"""The container's health check: do the event loops of the worker's processes turn? Standard library only."""

import os
import sys
import time
from pathlib import Path

FOLDER = Path("/tmp")  # noqa: S108  the container's own tmpfs
BEAT_SECONDS = 3.0
# A process whose loop is blocked for so long ends itself (worker/loop.py). Below STALLED_SECONDS (worker/stalled.py),
# so that it is gone before its jobs are given to another.
STUCK_SECONDS = 15.0
MAX_AGE_SECONDS = (
    20.0  # above STUCK_SECONDS: what is stuck is replaced before it is called unhealthy
)


def heartbeat_file(process: int) -> Path:
    return FOLDER / f"worker.{process}.heartbeat"


def problem(path: Path, now: float | None = None) -> str | None:
    """Return what is wrong with the heartbeat of one process, or None."""
    try:
        age_seconds = (time.time() if now is None else now) - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {error}"
    if age_seconds > MAX_AGE_SECONDS:
        return f"{path.name}: last heartbeat {age_seconds:.0f} s ago, more than {MAX_AGE_SECONDS:.0f} s"
    return None


def main() -> int:
    processes = int(os.environ.get("WORKER_PROCESSES") or 1)
    found = [text for process in range(processes) if (text := problem(heartbeat_file(process)))]
    sys.stdout.write(f"{'; '.join(found) or 'beating'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
