"""The metrics of several processes: each Gunicorn worker writes files, and any worker adds them up.

A file's name has the worker's number, not its process id: a replacement continues the files of the
worker that it replaces. Otherwise each replacement would add files.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

FOLDER = Path(tempfile.gettempdir()) / "metrics"  # a tmpfs in the container: writes stay in memory

# Identifies this process in the names of its files. The master's files hold only zeros, and are
# deleted.
_writer = "master"


def use_metric_files() -> None:
    """Make prometheus_client write files. (!) Call it before any metric is defined."""
    FOLDER.mkdir(exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(FOLDER)
    values.ValueClass = values.MultiProcessValue(lambda: _writer)  # type: ignore[no-untyped-call]


def wipe() -> None:
    """Delete all files; Gunicorn's `on_starting`, before the first fork."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)


def lowest_free(taken: Iterable[int]) -> int:
    """Return the lowest number above 0 that is not taken."""
    numbers = set(taken)
    return next(number for number in range(1, len(numbers) + 2) if number not in numbers)


def give_number(server: Any, worker: Any) -> None:
    """Number the worker that is forked next; Gunicorn's `pre_fork`."""
    worker.metrics_number = lowest_free(other.metrics_number for other in server.WORKERS.values())


def take_number(_server: Any, worker: Any) -> None:
    """Write the worker's own files from now on; Gunicorn's `post_fork`."""
    global _writer  # noqa: PLW0603  one per process, and the library asks for it without an argument
    _writer = str(worker.metrics_number)


def free_number(_server: Any, worker: Any) -> None:
    """Delete the gauges of a worker that ended; Gunicorn's `child_exit`."""
    mark_process_dead(worker.metrics_number, str(FOLDER))  # type: ignore[no-untyped-call]
