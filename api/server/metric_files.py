"""Metrics of several processes: each Gunicorn worker counts in files of its own, and whichever is asked adds up all.

The files are named after a number and not after the process, so that a worker that is replaced goes
on counting in those of the one before: otherwise they would pile up with every replacement.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

FOLDER = (
    Path(tempfile.gettempdir()) / "metrics"
)  # in the container a tmpfs: a write is a write to memory

# Whose files this process counts in; the master's own numbers are zeros that are thrown away.
_writer = "master"


def use_metric_files() -> None:
    """Have prometheus_client count in files. (!) To be called before anything defines a metric."""
    FOLDER.mkdir(exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(FOLDER)
    values.ValueClass = values.MultiProcessValue(lambda: _writer)  # type: ignore[no-untyped-call]


def wipe() -> None:
    """Begin with nothing, as Gunicorn's `on_starting`: the first worker is not forked yet."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)


def lowest_free(taken: Iterable[int]) -> int:
    """Return the lowest number from 1 on that no worker has."""
    numbers = set(taken)
    return next(number for number in range(1, len(numbers) + 2) if number not in numbers)


def give_number(server: Any, worker: Any) -> None:
    """Number a worker that is about to be forked, as Gunicorn's `pre_fork`."""
    worker.metrics_number = lowest_free(other.metrics_number for other in server.WORKERS.values())


def take_number(_server: Any, worker: Any) -> None:
    """Count in the worker's own files from now on, as Gunicorn's `post_fork`."""
    global _writer  # noqa: PLW0603  one per process, and the library asks for it without an argument
    _writer = str(worker.metrics_number)


def free_number(_server: Any, worker: Any) -> None:
    """Take out what only a living worker has, such as connections in use, as Gunicorn's `child_exit`."""
    mark_process_dead(worker.metrics_number, str(FOLDER))  # type: ignore[no-untyped-call]
