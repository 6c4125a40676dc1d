"""The tasks of the backup service: what each does, when it is due, and that its end is recorded, good or bad."""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backup import archive, drill, pgbackrest, records
from backup.commands import Failed
from backup.records import Record
from backup.settings import Settings

HOUR = 3600.0
# A task that failed is tried again after so long; chosen: soon enough to be done before somebody has to look.
RETRY_SECONDS = 300.0
FIRST_DRILL_SECONDS = 900.0
# Of a drill off the host that failed; chosen: it reads a whole backup from there, which providers charge for.
DEAR_RETRY_SECONDS = 6 * HOUR
Result = tuple[str, dict[str, object]]


@dataclass(frozen=True)
class Task:
    """A task: `run` returns a line for people and facts for metrics, or raises Failed."""

    name: str
    run: Callable[[Settings], Result]
    is_due: Callable[[Settings, float], bool]


def perform(task: Task, settings: Settings, *, wait_seconds: float = 0) -> Record:
    """Run a task under the lock and record how it ended.

    Raises:
        Failed: where another task is running; then nothing is recorded.
    """
    with records.running(task.name, wait_seconds=wait_seconds):
        started = time.time()
        before = records.read(task.name)
        # What is killed leaves this, and then reads as failed.
        records.write(
            replace(before, task=task.name, facts={**before.facts, records.BEGUN: started})
        )
        log(f"{task.name} begins", action="backup_task_started", task=task.name)
        try:
            text, facts = task.run(settings)
            is_well = True
        except Failed as failed:
            text, facts, is_well = str(failed), {}, False
        except Exception as error:
            text, facts, is_well = f"{type(error).__name__}: {error}", {}, False
        now = time.time()
        last = now if is_well else before.last_success
        record = Record(task.name, now, round(now - started, 2), is_well, text, last, facts)
        records.write(record)
    action = "backup_task_done" if is_well else "backup_task_failed"
    level = "INFO" if is_well else "ERROR"
    log(f"{task.name}: {text}", action=action, level=level, task=task.name, seconds=record.seconds)
    return record


def log(message: str, *, action: str, level: str = "INFO", **fields: object) -> None:
    """Write one line of JSON, as every service of the stack does."""
    line = {
        "timestamp": datetime.now(UTC).isoformat(),
        "level": level,
        "service": "backup",
        "message": message,
    }
    sys.stdout.write(json.dumps({**line, "action": action, **fields}) + "\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    """Pass a line of pgBackRest on, but for those that repeat its options."""
    if " command begin " not in line:
        log(re.sub(r"^P\d+ +(INFO: )?", "", line), action="backup_progress")


def _back_up(kind: str, repository: int = pgbackrest.LOCAL) -> Callable[[Settings], Result]:
    def run(settings: Settings) -> Result:
        pgbackrest.create_stanza(repository)
        _expire(settings, repository)  # a volume that is full gets room first
        pgbackrest.take(kind, _say, repository=repository)
        left = _expire(settings, repository)
        made = pgbackrest.backups(repository)[-1]
        seconds = (made.stopped - made.started).total_seconds()
        text = (
            f"{made.kind} {made.label}, {made.database_bytes / 1e6:.0f} MB in {seconds:.0f} s{left}"
        )
        facts = {
            "label": made.label,
            "bytes": made.database_bytes,
            "repository_bytes": made.repository_bytes,
        }
        return text, {**facts, "wal_start": made.wal_start}

    return run


def _expire(settings: Settings, repository: int) -> str:
    """Delete what is too old; where that fails the backup is good all the same, and its line says so."""
    try:
        pgbackrest.expire(settings.keep_days, repository)
    except Failed as failed:
        log(str(failed), action="backup_expire_failed", level="ERROR")
        return f"; (!) old ones could not be deleted: {failed}"
    return ""


def _is_over(task: str, hours: float, now: float) -> bool:
    """Whether the last success is longer ago than that; a task that failed is tried again soon in any case."""
    record = records.read(task)
    if not record.is_well:
        return now - record.ended >= RETRY_SECONDS
    return now - record.last_success >= hours * HOUR


def _is_full_due(settings: Settings, now: float) -> bool:
    """After an upgrade of Postgres, or where the backups are gone, the next one comes at once."""
    return _is_over("full", 0 if _held().is_empty else settings.full_hours, now)


def _is_incremental_due(settings: Settings, now: float) -> bool:
    """A full one counts, too. After a gap in the WAL, or a restore, the next one comes at once."""
    newest = max(records.read(name).last_success for name in ("full", "incremental"))
    if not newest or not _is_over("incremental", 0, now):
        return False
    record = records.read("incremental")
    is_failed = bool(record.ended) and not record.is_well and record.ended > newest
    held = _held()
    return (
        now - newest >= settings.backup_hours * HOUR
        or is_failed
        or bool(held.gap)
        or held.is_replaced
    )


def _is_shipped(settings: Settings) -> bool:
    """Whether there is a place off the host, and all that is archived has got there."""
    shipping = records.read("shipping")
    return settings.offsite is not None and shipping.is_well and not shipping.facts.get("waiting")


def _is_offsite_due(kind: str) -> Callable[[Settings, float], bool]:
    """As on this host; but only while shipping goes well, which a backup has to wait for at its end."""

    def is_due(settings: Settings, now: float) -> bool:
        if not _is_shipped(settings):
            return False
        full = records.read("offsite-full")
        if kind == "full":
            return _is_over("offsite-full", settings.full_hours, now)
        newest = max(full.last_success, records.read("offsite-incremental").last_success)
        if not full.last_success or not _is_over("offsite-incremental", 0, now):
            return False
        return now - newest >= settings.backup_hours * HOUR or is_gap_offsite()

    return is_due


def is_gap_offsite() -> bool:
    """Whether segments are missing off the host that no backup there has made up for."""
    gap = str(records.read("shipping").facts.get("after_gap", ""))
    made = [
        records.read(name).facts.get("wal_start", "")
        for name in ("offsite-full", "offsite-incremental")
    ]
    return gap > max(map(str, made))


@dataclass(frozen=True)
class Archived:
    """What the repository holds from the newest backup's begin on.

    `newest` is when its newest segment came, in seconds since 1970, 0 for none; `gap` says which are missing;
    `is_replaced` whether a restored database has taken the place of the one that was backed up last; `is_empty` whether
    there is no backup of the present database.
    """

    label: str = ""
    newest: float = 0.0
    gap: str = ""
    is_replaced: bool = False
    is_empty: bool = False


# What the watch saw last: to list the archive costs the most of all that is done every few seconds.
seen = Archived()


def look() -> Archived:
    """List the archive from the newest backup's begin on, and keep what was seen for the schedule.

    Raises:
        Failed: where the repository cannot be read.
    """
    global seen  # noqa: PLW0603
    made = pgbackrest.backups_of_the_newest()
    if not made:
        seen = Archived(is_empty=True)
        return seen
    held = archive.since(made[-1].wal_start, made[-1].archive)
    missing = archive.gaps(held, made[-1].wal_start)
    gap = ", ".join(
        f"{last - first + 1} segments after the backup {made[-1].label}" for first, last in missing
    )
    newest = max(held, key=lambda one: (one.archived, one.name), default=None)
    is_replaced = newest is not None and newest.name[:8] > made[-1].wal_start[:8]
    seen = Archived(made[-1].label, newest.archived if newest else 0.0, gap, is_replaced)
    return seen


def _held() -> Archived:
    """Return what the watch saw last; what is there now where that asks for a backup, which may have ended since."""
    return look() if seen.gap or seen.is_replaced or seen.is_empty else seen


def _is_drill_due(settings: Settings, now: float) -> bool:
    """The first one comes a while after the first backup: there is something to restore to by then."""
    if not records.read("drill").ended:
        first = records.read("full").last_success
        return bool(first) and now - first >= FIRST_DRILL_SECONDS
    return _is_over("drill", settings.drill_hours, now)


def first_offsite() -> float:
    """Return when there were backups both here and off the host, in seconds since 1970; 0 where there are not.

    What is off the host may be much older than this installation, and the other way round.
    """
    here, there = records.read("full").last_success, records.read("offsite-full").last_success
    return max(here, there) if here and there else 0.0


def _is_offsite_drill_due(settings: Settings, now: float) -> bool:
    """While what it reads is whole. One that failed comes soon where it was cut off, or there is a newer backup."""
    first, record = first_offsite(), records.read("offsite-drill")
    if not first or not _is_shipped(settings) or is_gap_offsite():
        return False
    if not record.ended:
        return now - first >= FIRST_DRILL_SECONDS
    if record.is_well:
        return now - record.last_success >= settings.offsite_drill_hours * HOUR
    newest = max(
        records.read(name).last_success for name in ("offsite-full", "offsite-incremental")
    )
    is_soon = records.BEGUN in record.facts or newest > record.ended
    return now - record.ended >= (RETRY_SECONDS if is_soon else DEAR_RETRY_SECONDS)


def _drill(repository: int = pgbackrest.LOCAL) -> Callable[[Settings], Result]:
    return lambda _: drill.run(repository)


FULL = Task("full", _back_up("full"), _is_full_due)
INCREMENTAL = Task("incremental", _back_up("incr"), _is_incremental_due)
DRILL = Task("drill", _drill(), _is_drill_due)
OFFSITE_FULL = Task("offsite-full", _back_up("full", pgbackrest.OFFSITE), _is_offsite_due("full"))
OFFSITE_INCREMENTAL = Task(
    "offsite-incremental", _back_up("incr", pgbackrest.OFFSITE), _is_offsite_due("incr")
)
OFFSITE_DRILL = Task("offsite-drill", _drill(pgbackrest.OFFSITE), _is_offsite_drill_due)
OFF_THE_HOST = [OFFSITE_FULL, OFFSITE_INCREMENTAL, OFFSITE_DRILL]
TASKS = [FULL, INCREMENTAL, OFFSITE_FULL, OFFSITE_INCREMENTAL, DRILL, OFFSITE_DRILL]
