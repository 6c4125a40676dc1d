"""What each task did last, kept in the volume of the backups: a restart forgets no failure and no success."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backup.commands import Failed

FOLDER = Path("/var/lib/pgbackrest")
BEGUN = "begun"  # the fact of a task that did not end yet, in seconds since 1970
CLOCK_SECONDS = 60.0
GLANCE_SECONDS = 0.5  # above what `is_running` holds the lock for


@dataclass(frozen=True)
class Record:
    """The last run of a task. Times in seconds since 1970, 0 for never."""

    task: str
    ended: float = 0.0
    seconds: float = 0.0
    is_well: bool = False
    text: str = ""
    last_success: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def read(task: str, folder: Path = FOLDER) -> Record:
    """Return a task's record; an empty one where there is none, or where it cannot be read, or lies in the future."""
    record = _load(task, folder)
    while BEGUN in record.facts and not is_running(folder):
        again = _load(task, folder)
        if again == record:
            return replace(
                record, ended=float(record.facts[BEGUN]), is_well=False, text="it was cut off"
            )
        record = again  # it ended while the lock was looked at
    return record


def _load(task: str, folder: Path) -> Record:
    try:
        record = Record(**json.loads((folder / f"{task}.json").read_text(encoding="utf-8")))
        begun = float(record.facts.get(BEGUN, 0))
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # missing evidence counts as a failure: "never"
        return Record(task)
    if max(record.ended, record.last_success, begun) > time.time() + CLOCK_SECONDS:
        return Record(task)  # of a clock that was ahead: else nothing would be due until then
    return record


def is_running(folder: Path = FOLDER) -> bool:
    """Whether a task is running now, in this container or another."""
    try:
        with running("", folder):
            return False
    except Failed:
        return True


def write(record: Record, folder: Path = FOLDER) -> None:
    """Keep a record; durable when this returns."""
    temporary = folder / f".{record.task}.json.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / f"{record.task}.json")


@contextmanager
def running(task: str, folder: Path = FOLDER, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock that lets one task run at a time, by the schedule or by hand; the kernel frees it.

    Raises:
        Failed: where another one holds it, with its name.
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
                    raise Failed(
                        f"{holder} is running",
                        ["wait for its end; `docker compose restart backup` ends what hangs"],
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(task)
        file.flush()
        yield
