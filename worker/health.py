"""The container's health check: is the event loop of each worker process running?

Standard library only.
"""

import os
import sys
import time
from pathlib import Path

FOLDER = Path("/tmp")  # noqa: S108  the container's own tmpfs
BEAT_SECONDS = 3.0
# A process whose loop is blocked for this long ends itself (worker/loop.py). Below STALLED_SECONDS
# (worker/stalled.py): the process has ended before another gets its jobs.
STUCK_SECONDS = 15.0
# Above STUCK_SECONDS: a stuck process is replaced before the container becomes unhealthy.
MAX_AGE_SECONDS = 20.0


def heartbeat_file(process: int) -> Path:
    """Return the file that a process touches every BEAT_SECONDS."""
    return FOLDER / f"worker.{process}.heartbeat"


def problem(path: Path, now: float | None = None) -> str | None:
    """Return the fault of a heartbeat file, or None; `now` is in seconds since the epoch."""
    try:
        age_seconds = (time.time() if now is None else now) - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {error}"
    if age_seconds > MAX_AGE_SECONDS:
        age = f"last heartbeat {age_seconds:.0f} s ago, more than {MAX_AGE_SECONDS:.0f} s"
        return f"{path.name}: {age}"
    return None


def main() -> int:
    """Print the problems of all processes; return 1 if there is one."""
    processes = int(os.environ.get("WORKER_PROCESSES") or 1)
    problems = [text for process in range(processes) if (text := problem(heartbeat_file(process)))]
    sys.stdout.write(f"{'; '.join(problems) or 'beating'}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
