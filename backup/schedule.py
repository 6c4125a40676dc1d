"""Decides when each task of the backup service is due."""

from backup import records
from backup.policy import Policy
from backup.snapshot import ArchiveState

HOUR = 3600.0
# Seconds until a failed task runs again. Chosen: short enough to succeed before somebody must look.
RETRY_SECONDS = 300.0
FIRST_DRILL_SECONDS = 900.0
# The same for a drill off the host, which downloads a whole backup that providers charge for.
EXPENSIVE_RETRY_SECONDS = 6 * HOUR


def _is_overdue(task: str, hours: float, now: float) -> bool:
    """Whether the last success is older than `hours`; a failed task runs again soon in any case."""
    record = records.read(task)
    if not record.is_well:
        return now - record.ended >= RETRY_SECONDS
    return now - record.last_success >= hours * HOUR


def is_full_due(policy: Policy, archive: ArchiveState, now: float) -> bool:
    """Whether a full backup is due: at once if the present database has no backup.

    A database has no backup after an upgrade of Postgres, or if its backups were lost.
    """
    return _is_overdue("full", 0 if archive.is_empty else policy.full_hours, now)


def is_incremental_due(policy: Policy, archive: ArchiveState, now: float) -> bool:
    """Whether an incremental backup is due, by the age of the newest backup of either kind.

    After a gap in the WAL, or a restore, it is due at once.
    """
    newest = max(records.read(name).last_success for name in ("full", "incremental"))
    if not newest or not _is_overdue("incremental", 0, now):
        return False
    record = records.read("incremental")
    is_failed = bool(record.ended) and not record.is_well and record.ended > newest
    return now - newest >= policy.backup_hours * HOUR or is_failed or archive.needs_backup


def _is_everything_shipped(policy: Policy) -> bool:
    shipping = records.read("shipping")
    return policy.offsite is not None and shipping.is_well and not shipping.facts.get("waiting")


def is_offsite_full_due(policy: Policy, _: ArchiveState, now: float) -> bool:
    """Whether a full backup off the host is due.

    Only while shipping works: a backup waits at its end until its last segment has arrived.
    """
    return _is_everything_shipped(policy) and _is_overdue("offsite-full", policy.full_hours, now)


def is_offsite_incremental_due(policy: Policy, _: ArchiveState, now: float) -> bool:
    """Whether an incremental backup off the host is due; only while shipping works."""
    if not _is_everything_shipped(policy):
        return False
    full = records.read("offsite-full").last_success
    newest = max(full, records.read("offsite-incremental").last_success)
    if not full or not _is_overdue("offsite-incremental", 0, now):
        return False
    return now - newest >= policy.backup_hours * HOUR or has_offsite_gap()


def has_offsite_gap() -> bool:
    """Whether segments are missing off the host, and no later backup there replaces them."""
    gap = str(records.read("shipping").facts.get("after_gap", ""))
    starts = [
        records.read(name).facts.get("wal_start", "")
        for name in ("offsite-full", "offsite-incremental")
    ]
    return gap > max(map(str, starts))


def is_drill_due(policy: Policy, _: ArchiveState, now: float) -> bool:
    """Whether a drill is due; the first one some time after the first backup.

    By then there is a range of times to restore.
    """
    if not records.read("drill").ended:
        first = records.read("full").last_success
        return bool(first) and now - first >= FIRST_DRILL_SECONDS
    return _is_overdue("drill", policy.drill_hours, now)


def find_offsite_start() -> float:
    """Return when backups existed both here and off the host, in seconds since 1970, or 0.

    The backups off the host may be much older than this installation, or much newer.
    """
    here, there = records.read("full").last_success, records.read("offsite-full").last_success
    return max(here, there) if here and there else 0.0


def is_offsite_drill_due(policy: Policy, _: ArchiveState, now: float) -> bool:
    """Whether a drill off the host is due; only while its repository lacks no segment.

    A failed drill runs again soon if it was interrupted, or if there is a newer backup.
    """
    first, record = find_offsite_start(), records.read("offsite-drill")
    if not first or not _is_everything_shipped(policy) or has_offsite_gap():
        return False
    if not record.ended:
        return now - first >= FIRST_DRILL_SECONDS
    if record.is_well:
        return now - record.last_success >= policy.offsite_drill_hours * HOUR
    newest = max(
        records.read(name).last_success for name in ("offsite-full", "offsite-incremental")
    )
    is_soon = records.BEGUN in record.facts or newest > record.ended
    return now - record.ended >= (RETRY_SECONDS if is_soon else EXPENSIVE_RETRY_SECONDS)
