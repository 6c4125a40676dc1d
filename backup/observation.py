"""What is known of the archive, the backups and the drills at one moment, and what of it is wrong."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from backup import postgres, records, tasks
from backup.commands import Failed
from backup.records import Record
from backup.settings import Settings
from backup.tasks import Archived

# Chosen: four times archive_timeout (postgres/postgresql.conf); an alert is due within two minutes.
ARCHIVE_LAG_SECONDS = 120.0
# A task that is late by half its interval did not run; the schedule itself retries a failed one much sooner.
LATE = 1.5
# A new stack has time for its first backup, and for its first drill.
FIRST_SECONDS = 3600.0
DISK_PERCENT_LOW = 15  # partner: scripts/stack/stories/status.py
ARCHIVER = (
    "select coalesce(last_archived_wal, ''), coalesce(extract(epoch from last_archived_time), 0),"
    " coalesce(extract(epoch from last_failed_time), 0), coalesce(extract(epoch from stats_reset), 0),"
    " (select count(*) from pg_ls_archive_statusdir() where name like '%.ready'),"
    " (select sum(size) from pg_ls_waldir()) from pg_stat_archiver"
)


@dataclass(frozen=True)
class Row:
    """One line of `scripts/status.sh`."""

    name: str
    is_well: bool
    text: str


@dataclass(frozen=True)
class Archiver:
    """Postgres' own account of its archiving; times in seconds since 1970, 0 for never."""

    last_segment: str = ""
    archived: float = 0.0
    failed: float = 0.0
    since: float = 0.0
    waiting: int = 0
    wal_bytes: int = 0


@dataclass(frozen=True)
class Snapshot:
    """What was seen at `at`; `faults` names what could not be seen."""

    at: float = 0.0
    archiver: Archiver = field(default_factory=Archiver)
    archive: Archived = field(default_factory=Archived)
    backups_free: float = 1.0
    faults: dict[str, str] = field(default_factory=dict)

    def lag_seconds(self, now: float) -> float:
        """How old the newest segment in the archive is: what was written since then is on the data volume alone.

        By the repository: to Postgres a segment that was dropped is as good as archived.
        """
        return now - (self.archive.newest or self.archiver.since or now)


def observe() -> Snapshot:
    """Ask Postgres and the repository; what fails is a fault in the snapshot."""
    faults = {}
    archiver, held = Archiver(), Archived()
    try:
        name, archived, failed, since, waiting, size = postgres.ask(ARCHIVER)[0]
        archiver = Archiver(
            name, float(archived), float(failed), float(since), int(waiting), int(size)
        )
    except Failed as error:
        faults["archiver"] = str(error)
    try:
        held = tasks.look()
    except Failed as error:
        faults["repository"] = str(error)
    usage = shutil.disk_usage(records.FOLDER if records.FOLDER.exists() else Path("/"))
    return Snapshot(time.time(), archiver, held, usage.free / usage.total, faults)


def rows(settings: Settings, seen: Snapshot, now: float) -> list[Row]:
    """Return the lines for people; a thing of which nothing is known is not well."""
    return [
        _backup(settings, seen, now),
        _archive(seen, now),
        _drill(settings, now),
        _disk(seen),
        _offsite(settings, now),
    ]


def _backup(settings: Settings, seen: Snapshot, now: float) -> Row:
    full, incremental = records.read("full"), records.read("incremental")
    newest = max(full, incremental, key=lambda record: record.last_success)
    latest = max(full, incremental, key=lambda record: record.ended)
    if "repository" in seen.faults:
        return Row("last backup", False, seen.faults["repository"])
    if not newest.last_success:
        is_early = (
            bool(seen.archiver.since)
            and now - seen.archiver.since < FIRST_SECONDS
            and not latest.ended
        )
        return Row("last backup", is_early, f"none yet: {latest.text or 'the first is on its way'}")
    if not seen.archive.label:
        return Row("last backup", False, "the repository holds no backup of this database")
    text = f"{newest.text if newest.is_well else 'the last good one'}, {age(now - newest.last_success)} ago"
    text += f"; full {age(now - full.last_success)} ago"
    if not latest.is_well:
        return Row(
            "last backup",
            False,
            f"{text}; {latest.task} failed {age(now - latest.ended)} ago: {latest.text}",
        )
    is_late = now - newest.last_success > LATE * settings.backup_hours * tasks.HOUR
    is_late = is_late or now - full.last_success > LATE * settings.full_hours * tasks.HOUR
    return Row("last backup", not is_late, text)


def _archive(seen: Snapshot, now: float) -> Row:
    if "archiver" in seen.faults:
        return Row("archive", False, seen.faults["archiver"])
    one, lag = seen.archiver, seen.lag_seconds(now)
    text = f"{one.last_segment or 'no segment'} {lag:.0f} s ago, {one.waiting} waiting"
    text += f", {one.wal_bytes / 1e6:.0f} MB of WAL"
    if one.failed > one.archived and lag > ARCHIVE_LAG_SECONDS / 4:
        return Row("archive", False, f"archiving fails since {age(lag)}; {text}")
    if seen.archive.gap:
        return Row(
            "archive",
            False,
            f"missing: {seen.archive.gap}; times in between cannot be restored; {text}",
        )
    return Row("archive", lag < ARCHIVE_LAG_SECONDS, text)


def _drill(settings: Settings, now: float) -> Row:
    record = records.read("drill")
    is_well, text = _drilled(record, records.read("full").last_success, settings.drill_hours, now)
    return Row("drill", is_well, f"{text}, {record.text}" if record.is_well else text)


def _drilled(record: Record, first: float, hours: float, now: float) -> tuple[bool, str]:
    """Return whether a drill is well, and how its last one ended; the first has time from `first` on, 0 for not yet."""
    if not record.ended:
        first = float(record.facts.get(records.BEGUN, first))  # one that runs now
        return (
            not first or now - first < FIRST_SECONDS,
            "none yet: the first comes 15 min after the first backup",
        )
    passed = (
        f"the last one passed {age(now - record.last_success)} ago"
        if record.last_success
        else "none ever passed"
    )
    if not record.is_well:
        return False, f"failed {age(now - record.ended)} ago: {record.text}; {passed}"
    is_late = now - record.last_success > LATE * hours * tasks.HOUR
    return not is_late, f"{age(now - record.ended)} ago"


def _disk(seen: Snapshot) -> Row:
    percent = 100 * seen.backups_free
    return Row(
        "disk backups",
        percent >= DISK_PERCENT_LOW,
        f"{percent:.0f} % free on the volume of the backups",
    )


def offsite_lag_seconds(now: float) -> float:
    """Return how old the newest segment off the host is: what was written since then is lost with the host.

    From 1970 on where none was ever shipped.
    """
    return now - float(records.read("shipping").facts.get("archived", 0))


def _offsite(settings: Settings, now: float) -> Row:
    if not settings.offsite:
        return Row("off-host", True, "not configured: what is on this host is lost with it")
    shipping, lag = records.read("shipping"), offsite_lag_seconds(now)
    made = [records.read(name) for name in ("offsite-full", "offsite-incremental")]
    latest, newest = max(made, key=lambda one: one.ended), max(one.last_success for one in made)
    shipped = f"newest segment {age(lag)} old" if shipping.facts else "no segment yet"
    text = f"{shipped}, {shipping.facts.get('waiting', 0)} waiting"
    text += f"; backup {age(now - newest)} ago" if newest else "; no backup yet"
    drill = records.read("offsite-drill")
    is_drilled, drilled = _drilled(drill, tasks.first_offsite(), settings.offsite_drill_hours, now)
    text += f"; drill {drilled}"
    if not shipping.is_well:
        is_well = lag < ARCHIVE_LAG_SECONDS and is_drilled
        return Row("off-host", is_well, f"shipping fails: {shipping.text or 'not begun'}; {text}")
    if latest.ended and not latest.is_well:
        return Row(
            "off-host",
            False,
            f"{latest.task} failed {age(now - latest.ended)} ago: {latest.text}; {text}",
        )
    if tasks.is_gap_offsite():
        return Row(
            "off-host", False, f"missing: segments before {shipping.facts['after_gap']}; {text}"
        )
    is_late = now - newest > LATE * settings.backup_hours * tasks.HOUR
    is_late = is_late or now - made[0].last_success > LATE * settings.full_hours * tasks.HOUR
    return Row("off-host", lag < ARCHIVE_LAG_SECONDS and not is_late and is_drilled, text)


def age(seconds: float) -> str:
    """Return a length of time in one unit, as `3 h`."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
