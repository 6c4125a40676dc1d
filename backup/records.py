"""Keeps the record of each task's last run in the volume of the backups, across restarts."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backup.failure import Failure

FOLDER = Path("/var/lib/pgbackrest")
BEGUN = "begun"  # the fact of a task that has not ended yet, in seconds since 1970
CLOCK_SECONDS = 60.0
GLANCE_SECONDS = 0.5  # longer than `is_running` holds the lock


@dataclass(frozen=True)
class Record:
    """The last run of a task. Times are in seconds since 1970, 0 for never."""

    task: str
    ended: float = 0.0
    seconds: float = 0.0
    is_well: bool = False
    text: str = ""
    last_success: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def read(task: str, folder: Path = FOLDER) -> Record:
    """Return a task's record; an empty one if it is missing, unreadable or from the future."""
    record = _load(task, folder)
    while BEGUN in record.facts and not is_running(folder):
        again = _load(task, folder)
        if again == record:
            return replace(
                record, ended=float(record.facts[BEGUN]), is_well=False, text="it was cut off"
            )
        record = again  # the task ended between the two readings
    return record


def _load(task: str, folder: Path) -> Record:
    try:
        record = Record(**json.loads((folder / f"{task}.json").read_text(encoding="utf-8")))
        begun = float(record.facts.get(BEGUN, 0))
    except (OSError, ValueError, TypeError, AttributeError):  # without a record, it never ran
        return Record(task)
    if max(record.ended, record.last_success, begun) > time.time() + CLOCK_SECONDS:
        return Record(task)  # the clock was ahead; with this record nothing would be due until then
    return record


def is_running(folder: Path = FOLDER) -> bool:
    """Whether a task is running now, in this container or another."""
    try:
        with hold_lock("", folder):
            return False
    except Failure:
        return True


def write(record: Record, folder: Path = FOLDER) -> None:
    """Keep a record; it is durable when this returns."""
    draft = folder / f".{record.task}.json.new"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / f"{record.task}.json")


@contextmanager
def hold_lock(task: str, folder: Path = FOLDER, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock that lets one task run at a time; the kernel frees it if this process dies.

    Raises:
        Failure: when another task holds it, with that task's name.
    """
    deadline = time.monotonic() + max(wait_seconds, GLANCE_SECONDS)
    with (folder / "running.lock").open("a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another task"
                    raise Failure(
                        f"{holder} is running",
                        ["wait for its end; `docker compose restart backup` ends one that hangs"],
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(task)
        file.flush()
        yield
