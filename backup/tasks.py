"""The tasks of the backup service: their steps, and the record of their results."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from backup import drill, logs, pgbackrest, records, schedule
from backup.failure import Failure
from backup.pgbackrest import LOCAL, OFFSITE
from backup.policy import Policy
from backup.records import Record
from backup.snapshot import ArchiveState

Outcome = tuple[str, dict[str, object]]


@dataclass(frozen=True)
class Task:
    """A task: `run` returns a line for the operator and facts for metrics, or raises Failure."""

    name: str
    run: Callable[[Policy], Outcome]
    is_due: Callable[[Policy, ArchiveState, float], bool]


def perform(task: Task, policy: Policy, *, wait_seconds: float = 0) -> Record:
    """Run a task under the lock and record how it ended.

    Raises:
        Failure: when another task is running; then nothing is recorded.
    """
    with records.hold_lock(task.name, wait_seconds=wait_seconds):
        started = time.time()
        former = records.read(task.name)
        # A task that is killed leaves this record, which then reads as failed.
        begun = {**former.facts, records.BEGUN: started}
        records.write(replace(former, task=task.name, facts=begun))
        logs.write(f"{task.name} begins", action="backup_task_started", task=task.name)
        try:
            text, facts = task.run(policy)
            is_well = True
        except Failure as failure:
            text, facts, is_well = str(failure), {}, False
        except Exception as error:
            text, facts, is_well = f"{type(error).__name__}: {error}", {}, False
        now = time.time()
        last_success = now if is_well else former.last_success
        seconds = round(now - started, 2)
        record = Record(task.name, now, seconds, is_well, text, last_success, facts)
        records.write(record)
    action = "backup_task_done" if is_well else "backup_task_failed"
    level = "INFO" if is_well else "ERROR"
    logs.write(
        f"{task.name}: {text}", action=action, level=level, task=task.name, seconds=record.seconds
    )
    return record


def _report(line: str) -> None:
    """Log a line of pgBackRest, except those that repeat its options."""
    if " command begin " not in line:
        logs.write(re.sub(r"^P\d+ +(INFO: )?", "", line), action="backup_progress")


def _back_up(kind: str, repository: int = LOCAL) -> Callable[[Policy], Outcome]:
    def run(policy: Policy) -> Outcome:
        pgbackrest.create_stanza(repository)
        _expire(policy, repository)  # before the backup, to make room in a full volume
        pgbackrest.take_backup(kind, _report, repository=repository)
        note = _expire(policy, repository)
        backup = pgbackrest.list_backups(repository)[-1]
        seconds = (backup.stopped - backup.started).total_seconds()
        size = f"{backup.database_bytes / 1e6:.0f} MB"
        facts: dict[str, object] = {
            "label": backup.label,
            "bytes": backup.database_bytes,
            "repository_bytes": backup.repository_bytes,
            "wal_start": backup.wal_start,
        }
        return f"{backup.kind} {backup.label}, {size} in {seconds:.0f} s{note}", facts

    return run


def _expire(policy: Policy, repository: int) -> str:
    """Delete old backups; a failure does not fail the backup, but adds a note to its line."""
    try:
        pgbackrest.expire_backups(policy.keep_days, repository)
    except Failure as failure:
        logs.write(str(failure), action="backup_expire_failed", level="ERROR")
        return f"; (!) old ones could not be deleted: {failure}"
    return ""


def _drill(repository: int) -> Callable[[Policy], Outcome]:
    return lambda _: drill.run(repository)


FULL = Task("full", _back_up("full"), schedule.is_full_due)
INCREMENTAL = Task("incremental", _back_up("incr"), schedule.is_incremental_due)
DRILL = Task("drill", _drill(LOCAL), schedule.is_drill_due)
OFFSITE_FULL = Task("offsite-full", _back_up("full", OFFSITE), schedule.is_offsite_full_due)
OFFSITE_INCREMENTAL = Task(
    "offsite-incremental", _back_up("incr", OFFSITE), schedule.is_offsite_incremental_due
)
OFFSITE_DRILL = Task("offsite-drill", _drill(OFFSITE), schedule.is_offsite_drill_due)
OFF_THE_HOST = [OFFSITE_FULL, OFFSITE_INCREMENTAL, OFFSITE_DRILL]
TASKS = [FULL, INCREMENTAL, OFFSITE_FULL, OFFSITE_INCREMENTAL, DRILL, OFFSITE_DRILL]
