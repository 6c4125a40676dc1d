"""Chooses a restore's timeline, its backup and the explicit target at which recovery ends."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backup import archive, pgbackrest
from backup.failure import Failure
from backup.pgbackrest import Backup
from backup.restore import timelines, verification
from backup.restore.timelines import Archive, Chain, Timeline

LIST = "./scripts/restore.sh --list shows which times can be restored"
# A backup's times are whole seconds, and recovery cannot end within the backup.
BACKUP_ENDS = timedelta(seconds=1)


@dataclass(frozen=True)
class Range:
    """A range of times that can be restored; `missing` names the missing segment that ends it."""

    since: datetime
    until: datetime
    missing: str = ""


@dataclass(frozen=True)
class Wish:
    """The operator's request: a moment, or None for the newest; a backup, or "" for any."""

    moment: datetime | None
    label: str = ""
    repository: int = pgbackrest.LOCAL


@dataclass(frozen=True)
class Choice:
    """The parts of a restore; `kind` and `value` are recovery's target, `text` describes it."""

    backup: Backup
    timeline: int
    kind: str  # time, lsn or immediate
    value: str
    text: str
    checked_segments: int

    @property
    def target(self) -> str:
        """Recovery's target in one phrase, as `lsn 0/3000028`."""
        return f"{self.kind} {self.value}".rstrip()


class Repository:
    """One repository: its backups, oldest first, and the archive of its newest database.

    It reads the part of the archive that a restore to `moment` needs (None is the newest time), and
    later any older part that a chain needs.
    """

    def __init__(self, number: int, moment: datetime | None = None) -> None:
        self.number = number
        backups = pgbackrest.list_backups(number)
        if not backups:
            raise Failure(
                f"repository {number} holds no backup",
                ["./scripts/backup.sh takes a backup of a running database"],
            )
        newest = backups[-1].database_id
        self.backups = [backup for backup in backups if backup.database_id == newest]
        early = [
            backup
            for backup in self.backups
            if moment is None or backup.stopped + BACKUP_ENDS <= moment
        ]
        self._read_from((early or self.backups[:1])[-1])

    def _read_from(self, backup: Backup) -> None:
        self.first = backup.wal_start
        self.archive: Archive = timelines.read(backup.database_id, self.number, self.first)

    def list_usable(self, timeline: Timeline) -> list[Backup]:
        """Return the good backups from which recovery reaches a timeline, the oldest first."""
        return [
            backup
            for backup in self.backups
            if not backup.has_error and self._is_on_the_way(backup, timeline)
        ]

    def _is_on_the_way(self, backup: Backup, timeline: Timeline) -> bool:
        exit_lsn = timeline.exit_lsn(int(backup.wal_start[:8], 16))
        return exit_lsn is None or timelines.parse_lsn(backup.lsn_stop) <= exit_lsn

    def find_chain(self, backup: Backup, timeline: Timeline) -> Chain:
        """Return the segments that recovery from a backup reads, and the first missing one."""
        if archive.segment_number(backup.wal_start) < archive.segment_number(self.first):
            self._read_from(backup)
        return self.archive.find_chain(timeline, archive.segment_number(backup.wal_start))

    def list_ranges(self) -> list[Range]:
        """Return the ranges of times that the existing files can restore; no file is verified."""
        ranges = []
        began = datetime.fromtimestamp(0, UTC)
        for timeline in sorted(self.archive.timelines.values(), key=lambda line: line.number):
            for backup in self.list_usable(timeline):
                chain = self.find_chain(backup, timeline)
                end = verification.find_last(chain.segments, self.number)
                if end:
                    since = max(began, backup.stopped + BACKUP_ENDS)
                    ranges.append(Range(since, end.ended, chain.missing))
            ended = self.archive.find_end(timeline)
            began = datetime.fromtimestamp(ended, UTC) if ended else began
        return _merge([span for span in ranges if span.since < span.until])


def _merge(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for span in sorted(ranges, key=lambda each: each.since):
        if merged and span.since <= merged[-1].until:
            last = merged.pop()
            newest = max(last, span, key=lambda each: each.until)
            merged.append(Range(last.since, newest.until, newest.missing))
        else:
            merged.append(span)
    return merged


def choose(wish: Wish, report: Callable[[str], None]) -> Choice:
    """Choose a restore, and check each WAL segment that its recovery will read.

    Raises:
        Failure: when the request is not possible, with the nearest possible ones.
    """
    repository = Repository(wish.repository, wish.moment)
    if wish.moment is None:
        return _choose_newest(repository, wish, report)
    now = datetime.now(UTC)
    if wish.moment > now:
        moment = format_time(wish.moment)
        raise Failure(f"{moment} lies in the future: now is {format_time(now)}", [LIST])
    timeline = repository.archive.find_timeline_at(wish.moment.timestamp())
    backup = _find_backup_before(repository, wish, timeline)
    chain = repository.find_chain(backup, timeline)
    _report_chain(chain, backup, report)
    next_transaction = _check(repository, chain, wish, backup, report)
    text = f"everything that was committed by {format_time(wish.moment)}"
    if next_transaction:
        checked = _count_segments(next_transaction.lsn, chain)
        value = f"{wish.moment:%Y-%m-%d %H:%M:%S.%f}+00"
        return Choice(backup, timeline.number, "time", value, text, checked)
    # A timeline that has a successor is complete in the archive; the live one may not be.
    is_complete = not chain.missing and repository.archive.find_end(timeline)
    end = verification.find_last(chain.segments, repository.number) if is_complete else None
    if not end:
        raise _refuse_moment(repository, wish.moment, chain)
    return Choice(backup, timeline.number, "lsn", end.lsn, text, len(chain.segments))


def _report_chain(chain: Chain, backup: Backup, report: Callable[[str], None]) -> None:
    ended = format_time(backup.stopped)
    report(f"{len(chain.segments)} segments of WAL since the backup {backup.label} of {ended}")


def _count_segments(lsn: str, chain: Chain) -> int:
    """Return how many segments of a chain recovery reads up to an LSN."""
    last = timelines.parse_lsn(lsn) // timelines.SEGMENT_BYTES
    return sum(segment.number <= last for segment in chain.segments)


def _choose_newest(repository: Repository, wish: Wish, report: Callable[[str], None]) -> Choice:
    """Choose the last transaction in the archive as the explicit target."""
    timeline = repository.archive.newest
    backup = _find_backup_before(repository, wish, timeline)
    chain = repository.find_chain(backup, timeline)
    if chain.missing:
        end = verification.find_last(chain.segments, repository.number)
        raise _refuse_moment(repository, end.ended if end else backup.stopped, chain)
    _report_chain(chain, backup, report)
    _check(repository, chain, wish, backup, report)
    end = verification.find_last(chain.segments, repository.number)
    # If nothing was archived since the backup, the last transaction lies within it, and recovery
    # cannot end there.
    if end is None or timelines.parse_lsn(end.lsn) < timelines.parse_lsn(backup.lsn_stop):
        text = f"the backup of {format_time(backup.stopped)}"
        return Choice(backup, timeline.number, "immediate", "", text, 0)
    text = f"everything in the archive, which ends at {format_time(end.ended)}"
    return Choice(backup, timeline.number, "lsn", end.lsn, text, len(chain.segments))


def _find_backup_before(repository: Repository, wish: Wish, timeline: Timeline) -> Backup:
    usable = repository.list_usable(timeline)
    if wish.label:
        names = ", ".join(backup.label for backup in usable)
        usable = [backup for backup in usable if backup.label == wish.label]
        if not usable:
            raise Failure(
                f"there is no good backup {wish.label} that leads there",
                [f"the good ones are: {names}", LIST],
            )
    early = [
        backup
        for backup in usable
        if wish.moment is None or backup.stopped + BACKUP_ENDS <= wish.moment
    ]
    if early:
        return early[-1]
    hint = "no backup fits"
    if usable:
        first = format_time(usable[0].stopped + BACKUP_ENDS)
        hint = f"the earliest time that can be restored is {first}"
    raise Failure(f"{format_time(wish.moment)} lies before the first backup", [hint, LIST])


def _check(
    repository: Repository,
    chain: Chain,
    wish: Wish,
    backup: Backup,
    report: Callable[[str], None],
) -> verification.Transaction | None:
    moment = wish.moment or datetime.max.replace(tzinfo=UTC)
    try:
        return verification.find_first_after(chain.segments, moment, repository.number, report)
    except verification.DamagedSegment as damaged:
        good = [segment for segment in chain.segments if segment.number < damaged.segment.number]
        end = verification.find_last(good, repository.number)
        hints = _list_alternatives(repository, backup, end.ended if end else None)
        raise Failure(damaged.observation, hints) from None


def _list_alternatives(repository: Repository, backup: Backup, end: datetime | None) -> list[str]:
    """Return the times that can be restored on both sides of a damaged or missing segment."""
    hints = []
    if end and end > backup.stopped + BACKUP_ENDS:
        last = format_time(subtract_microsecond(end))
        hints.append(f"the last time before it that can be restored: --to {last}")
    elif backup != repository.backups[0]:
        hints.append(f"an older backup ends earlier: --to {format_time(backup.started)}")
    later = [each for each in repository.backups if each.started > (end or backup.stopped)]
    if later:
        first = format_time(later[0].stopped + BACKUP_ENDS)
        hints.append(f"the first time after it that can be restored: --to {first}")
    return [*hints, LIST, "docs/runbook.md#backup-failed-or-too-old"]


def _refuse_moment(repository: Repository, moment: datetime, chain: Chain) -> Failure:
    """Return the refusal of a moment in a gap, or after the archive's end."""
    ranges = repository.list_ranges()
    earlier = [span.until for span in ranges if span.until <= moment]
    later = [span.since for span in ranges if span.since > moment]
    hints = []
    if earlier:
        last = format_time(subtract_microsecond(max(earlier)))
        hints.append(f"the nearest before it: --to {last}")
    if later:
        hints.append(f"the nearest after it: --to {format_time(min(later))}")
    if chain.missing:
        return Failure(f"the archive's segment {chain.missing} is missing", [*hints, LIST])
    return Failure(f"the archive ends before {format_time(moment)}", [*hints, LIST])


def subtract_microsecond(moment: datetime) -> datetime:
    """Return the last moment before a transaction.

    Recovery ends at the first transaction that is later than its target.
    """
    return moment - timedelta(microseconds=1)


def format_time(moment: datetime | None) -> str:
    """Return a time in the form that --to takes."""
    if moment is None:
        return "the newest"
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if moment.microsecond else "%Y-%m-%dT%H:%M:%SZ"
    return moment.strftime(form)
