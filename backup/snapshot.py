"""Observes Postgres' archiving and the repository at one moment; it judges nothing."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from backup import archive, pgbackrest, postgres, records
from backup.failure import Failure

ARCHIVER = (
    "select coalesce(last_archived_wal, ''),"
    " coalesce(extract(epoch from last_archived_time), 0),"
    " coalesce(extract(epoch from last_failed_time), 0),"
    " coalesce(extract(epoch from stats_reset), 0),"
    " (select count(*) from pg_ls_archive_statusdir() where name like '%.ready'),"
    " (select sum(size) from pg_ls_waldir()) from pg_stat_archiver"
)


@dataclass(frozen=True)
class Archiver:
    """Postgres' own counters of its archiving; times in seconds since 1970, 0 for never."""

    last_segment: str = ""
    archived: float = 0.0
    failed: float = 0.0
    since: float = 0.0
    waiting: int = 0
    wal_bytes: int = 0


@dataclass(frozen=True)
class ArchiveState:
    """The content of the local repository from the start of its newest backup on.

    Args:
        label: the label of the newest backup.
        newest: when the newest segment was archived, in seconds since 1970, 0 for none.
        gap: which segments are missing; empty for none.
        is_replaced: whether a restored database has replaced the database of the newest backup.
        is_empty: whether there is no backup of the present database.
    """

    label: str = ""
    newest: float = 0.0
    gap: str = ""
    is_replaced: bool = False
    is_empty: bool = False

    @property
    def needs_backup(self) -> bool:
        """Whether this state alone makes a backup due, even if the newest backup is recent."""
        return bool(self.gap) or self.is_replaced or self.is_empty


@dataclass(frozen=True)
class Snapshot:
    """The state at the time `at`; `faults` names each source that did not answer."""

    at: float = 0.0
    archiver: Archiver = field(default_factory=Archiver)
    archive: ArchiveState = field(default_factory=ArchiveState)
    backups_free: float = 1.0
    faults: dict[str, str] = field(default_factory=dict)

    def lag_seconds(self, now: float) -> float:
        """Return the age of the newest archived segment: later rows are in the data volume only.

        Asks the repository, not Postgres, which counts a dropped segment as archived.
        """
        return now - (self.archive.newest or self.archiver.since or now)


def take() -> Snapshot:
    """Ask Postgres and the repository; a source that does not answer is a fault in the snapshot."""
    faults = {}
    archiver, archived = Archiver(), ArchiveState()
    try:
        name, newest, failed, since, waiting, size = postgres.ask(ARCHIVER)[0]
        archiver = Archiver(
            name, float(newest), float(failed), float(since), int(waiting), int(size)
        )
    except Failure as failure:
        faults["archiver"] = str(failure)
    try:
        archived = read_archive()
    except Failure as failure:
        faults["repository"] = str(failure)
    usage = shutil.disk_usage(records.FOLDER if records.FOLDER.exists() else Path("/"))
    return Snapshot(time.time(), archiver, archived, usage.free / usage.total, faults)


def read_archive() -> ArchiveState:
    """List the local repository from the start of its newest backup on.

    (!) This is the most expensive operation that the service repeats every few seconds.

    Raises:
        Failure: when the repository cannot be read.
    """
    backups = pgbackrest.list_current_backups()
    if not backups:
        return ArchiveState(is_empty=True)
    backup = backups[-1]
    segments = archive.list_segments_from(backup.wal_start, backup.database_id)
    gap = ", ".join(
        f"{last - first + 1} segments after the backup {backup.label}"
        for first, last in archive.find_gaps(segments, backup.wal_start)
    )
    newest = max(segments, key=lambda segment: (segment.archived, segment.name), default=None)
    is_replaced = newest is not None and newest.name[:8] > backup.wal_start[:8]
    return ArchiveState(backup.label, newest.archived if newest else 0.0, gap, is_replaced)
