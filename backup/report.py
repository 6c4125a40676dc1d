"""Checks backups, archive and drills, for the lines of `scripts/status.sh` and the metrics."""

from dataclasses import dataclass

from backup import records, schedule
from backup.policy import Policy
from backup.records import Record
from backup.schedule import HOUR
from backup.snapshot import Snapshot

# Chosen: four times archive_timeout (postgres/postgresql.conf); an alert is due in two minutes.
ARCHIVE_LAG_SECONDS = 120.0
# A task that is late by half its interval did not run: a failed task is retried much sooner.
LATE = 1.5
# A new stack has this long for its first backup, and for its first drill.
FIRST_SECONDS = 3600.0
DISK_PERCENT_LOW = 15  # Partner: DISK_PERCENT_LOW in scripts/stack/stories/status.py


@dataclass(frozen=True)
class Row:
    """One line of `scripts/status.sh`."""

    name: str
    is_well: bool
    text: str


def make_rows(policy: Policy, snapshot: Snapshot, now: float) -> list[Row]:
    """Return the lines for the operator; a source that did not answer is not ok."""
    return [
        _judge_backups(policy, snapshot, now),
        _judge_archive(snapshot, now),
        _judge_drill(policy, now),
        _judge_disk(snapshot),
        _judge_offsite(policy, now),
    ]


def _judge_backups(policy: Policy, snapshot: Snapshot, now: float) -> Row:
    full, incremental = records.read("full"), records.read("incremental")
    newest = max(full, incremental, key=lambda record: record.last_success)
    latest = max(full, incremental, key=lambda record: record.ended)
    if "repository" in snapshot.faults:
        return Row("last backup", False, snapshot.faults["repository"])
    if not newest.last_success:
        since = snapshot.archiver.since
        is_early = bool(since) and now - since < FIRST_SECONDS and not latest.ended
        return Row("last backup", is_early, f"none yet: {latest.text or 'the first is on its way'}")
    if not snapshot.archive.label:
        return Row("last backup", False, "the repository holds no backup of this database")
    text = newest.text if newest.is_well else "the last good one"
    text += f", {format_age(now - newest.last_success)} ago"
    text += f"; full {format_age(now - full.last_success)} ago"
    if not latest.is_well:
        failed = f"{latest.task} failed {format_age(now - latest.ended)} ago: {latest.text}"
        return Row("last backup", False, f"{text}; {failed}")
    is_late = now - newest.last_success > LATE * policy.backup_hours * HOUR
    is_late = is_late or now - full.last_success > LATE * policy.full_hours * HOUR
    return Row("last backup", not is_late, text)


def _judge_archive(snapshot: Snapshot, now: float) -> Row:
    if "archiver" in snapshot.faults:
        return Row("archive", False, snapshot.faults["archiver"])
    archiver, lag = snapshot.archiver, snapshot.lag_seconds(now)
    text = f"{archiver.last_segment or 'no segment'} {lag:.0f} s ago, {archiver.waiting} waiting"
    text += f", {archiver.wal_bytes / 1e6:.0f} MB of WAL"
    if archiver.failed > archiver.archived and lag > ARCHIVE_LAG_SECONDS / 4:
        return Row("archive", False, f"archiving has failed for {format_age(lag)}; {text}")
    if snapshot.archive.gap:
        missing = f"missing: {snapshot.archive.gap}; times in between cannot be restored"
        return Row("archive", False, f"{missing}; {text}")
    return Row("archive", lag < ARCHIVE_LAG_SECONDS, text)


def _judge_drill(policy: Policy, now: float) -> Row:
    record = records.read("drill")
    first = records.read("full").last_success
    is_well, text = _judge_drills(record, first, policy.drill_hours, now)
    return Row("drill", is_well, f"{text}, {record.text}" if record.is_well else text)


def _judge_drills(record: Record, first: float, hours: float, now: float) -> tuple[bool, str]:
    """Return whether the drills of one repository are well, and how the last one ended.

    Args:
        first: when the first drill could have run, in seconds since 1970; 0 for not yet.
    """
    if not record.ended:
        first = float(record.facts.get(records.BEGUN, first))  # the drill runs now
        is_early = not first or now - first < FIRST_SECONDS
        return is_early, "none yet: the first drill runs 15 min after the first backup"
    if not record.is_well:
        passed = (
            f"the last one passed {format_age(now - record.last_success)} ago"
            if record.last_success
            else "none ever passed"
        )
        return False, f"failed {format_age(now - record.ended)} ago: {record.text}; {passed}"
    is_late = now - record.last_success > LATE * hours * HOUR
    return not is_late, f"{format_age(now - record.ended)} ago"


def _judge_disk(snapshot: Snapshot) -> Row:
    percent = 100 * snapshot.backups_free
    text = f"{percent:.0f} % free on the volume of the backups"
    return Row("disk backups", percent >= DISK_PERCENT_LOW, text)


def measure_offsite_lag(now: float) -> float:
    """Return the seconds since the newest segment off the host, or since 1970 if there is none.

    If the host is lost, the rows written after that segment are lost with it.
    """
    return now - float(records.read("shipping").facts.get("archived", 0))


def _judge_offsite(policy: Policy, now: float) -> Row:
    if not policy.offsite:
        return Row("off-host", True, "not configured: the only backups are on this host")
    shipping, lag = records.read("shipping"), measure_offsite_lag(now)
    backups = [records.read(name) for name in ("offsite-full", "offsite-incremental")]
    latest = max(backups, key=lambda record: record.ended)
    newest = max(record.last_success for record in backups)
    shipped = f"newest segment {format_age(lag)} old" if shipping.facts else "no segment yet"
    text = f"{shipped}, {shipping.facts.get('waiting', 0)} waiting"
    text += f"; backup {format_age(now - newest)} ago" if newest else "; no backup yet"
    is_drilled, drills = _judge_drills(
        records.read("offsite-drill"),
        schedule.find_offsite_start(),
        policy.offsite_drill_hours,
        now,
    )
    text += f"; drill {drills}"
    if not shipping.is_well:
        is_well = lag < ARCHIVE_LAG_SECONDS and is_drilled
        return Row("off-host", is_well, f"shipping fails: {shipping.text or 'not begun'}; {text}")
    if latest.ended and not latest.is_well:
        failed = f"{latest.task} failed {format_age(now - latest.ended)} ago: {latest.text}"
        return Row("off-host", False, f"{failed}; {text}")
    if schedule.has_offsite_gap():
        missing = f"missing: segments before {shipping.facts['after_gap']}"
        return Row("off-host", False, f"{missing}; {text}")
    is_late = now - newest > LATE * policy.backup_hours * HOUR
    is_late = is_late or now - backups[0].last_success > LATE * policy.full_hours * HOUR
    return Row("off-host", lag < ARCHIVE_LAG_SECONDS and not is_late and is_drilled, text)


def format_age(seconds: float) -> str:
    """Return a length of time in one unit, as `3 h`."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
