"""Chooses what a restore is made of: the timeline, the backup and the explicit place at which recovery ends."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backup import archive, pgbackrest
from backup.commands import Failed
from backup.pgbackrest import Backup
from backup.restore import timelines, verification
from backup.restore.timelines import Archive, Chain, Timeline

LIST = "./scripts/restore.sh --list shows what can be restored"
# The times of a backup are whole seconds; recovery cannot end within it.
BACKUP_ENDS = timedelta(seconds=1)


@dataclass(frozen=True)
class Range:
    """A range of times that can be restored; `missing` names the segment whose absence ends it."""

    since: datetime
    until: datetime
    missing: str = ""


@dataclass(frozen=True)
class Wish:
    """What is asked for: a moment, or None for the newest; a backup to use, or the newest that fits."""

    moment: datetime | None
    label: str = ""
    repository: int = pgbackrest.LOCAL


@dataclass(frozen=True)
class Choice:
    """What a restore is made of. `kind` and `value` are recovery's target; `text` says it to a person."""

    backup: Backup
    timeline: int
    kind: str  # time, lsn or immediate
    value: str
    text: str
    checked_segments: int


class Repository:
    """What one repository holds: its backups, oldest first, and the archive of its newest database.

    Of the archive what a moment needs, the newest where it is None; what a chain needs besides is read for it.
    """

    def __init__(self, number: int, moment: datetime | None = None) -> None:
        self.number = number
        every = pgbackrest.backups(number)
        if not every:
            raise Failed(
                f"repository {number} holds no backup",
                ["./scripts/backup.sh takes one of a running database"],
            )
        newest = every[-1].archive
        self.backups = [backup for backup in every if backup.archive == newest]
        early = [
            one for one in self.backups if moment is None or one.stopped + BACKUP_ENDS <= moment
        ]
        self._read_from((early or self.backups[:1])[-1])

    def _read_from(self, backup: Backup) -> None:
        self.first = backup.wal_start
        self.archive: Archive = timelines.read(backup.archive, self.number, self.first)

    def usable(self, timeline: Timeline) -> list[Backup]:
        """Return the backups that lie on the way to a timeline, the oldest first; broken ones are left out."""
        return [
            one for one in self.backups if not one.has_error and self._is_on_the_way(one, timeline)
        ]

    def _is_on_the_way(self, backup: Backup, timeline: Timeline) -> bool:
        left = timeline.left(int(backup.wal_start[:8], 16))
        return left is None or timelines.place(backup.lsn_stop) <= left

    def chain(self, backup: Backup, timeline: Timeline) -> Chain:
        """Return the segments that recovery from a backup would read, and the first one that is missing."""
        if archive.number(backup.wal_start) < archive.number(self.first):
            self._read_from(backup)
        return self.archive.chain(timeline, archive.number(backup.wal_start))

    def ranges(self) -> list[Range]:
        """Return the ranges of times that can be restored, by what is there; nothing of it is verified here."""
        found = []
        began = datetime.fromtimestamp(0, UTC)
        for timeline in sorted(self.archive.timelines.values(), key=lambda one: one.number):
            for backup in self.usable(timeline):
                chain = self.chain(backup, timeline)
                end = verification.last(chain.segments, self.number)
                if end:
                    found.append(
                        Range(max(began, backup.stopped + BACKUP_ENDS), end.ended, chain.missing)
                    )
            ended = self.archive.ended(timeline)
            began = datetime.fromtimestamp(ended, UTC) if ended else began
        return _merged([one for one in found if one.since < one.until])


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for one in sorted(ranges, key=lambda each: each.since):
        if merged and one.since <= merged[-1].until:
            last = merged.pop()
            newest = max(last, one, key=lambda each: each.until)
            merged.append(Range(last.since, newest.until, newest.missing))
        else:
            merged.append(one)
    return merged


def choose(wish: Wish, say: Callable[[str], None]) -> Choice:
    """Choose, and check each segment of WAL that recovery will read up to where it ends.

    Raises:
        Failed: where the wish cannot be met, with what can.
    """
    held = Repository(wish.repository, wish.moment)
    if wish.moment is None:
        return _newest(held, wish, say)
    now = datetime.now(UTC)
    if wish.moment > now:
        raise Failed(f"{told(wish.moment)} lies in the future: now is {told(now)}", [LIST])
    timeline = held.archive.serving(wish.moment.timestamp())
    backup = _backup_before(held, wish, timeline)
    chain = held.chain(backup, timeline)
    say(
        f"{len(chain.segments)} segments of WAL since the backup {backup.label} of {told(backup.stopped)}"
    )
    found = _checked(held, chain, wish, backup, say)
    text = f"everything that was committed by {told(wish.moment)}"
    if found:
        number = _number_of(found.lsn, chain)
        return Choice(
            backup, timeline.number, "time", f"{wish.moment:%Y-%m-%d %H:%M:%S.%f}+00", text, number
        )
    # A timeline that another one followed has ended: what it holds is all there was.
    end = (
        None
        if chain.missing or not held.archive.ended(timeline)
        else verification.last(chain.segments, held.number)
    )
    if not end:
        raise _not_there(held, wish.moment, chain)
    return Choice(backup, timeline.number, "lsn", end.lsn, text, len(chain.segments))


def _number_of(lsn: str, chain: Chain) -> int:
    wanted = timelines.place(lsn) // timelines.SEGMENT_BYTES
    return sum(segment.number <= wanted for segment in chain.segments)


def _newest(held: Repository, wish: Wish, say: Callable[[str], None]) -> Choice:
    """Choose the last transaction in the archive: an explicit place, as for a moment."""
    timeline = held.archive.newest
    backup = _backup_before(held, wish, timeline)
    chain = held.chain(backup, timeline)
    if chain.missing:
        end = verification.last(chain.segments, held.number)
        raise _not_there(held, end.ended if end else backup.stopped, chain)
    say(
        f"{len(chain.segments)} segments of WAL since the backup {backup.label} of {told(backup.stopped)}"
    )
    _checked(held, chain, wish, backup, say)
    end = verification.last(chain.segments, held.number)
    # Where nothing was archived since the backup, the last transaction lies within it, where recovery cannot end.
    if end is None or timelines.place(end.lsn) < timelines.place(backup.lsn_stop):
        return Choice(
            backup, timeline.number, "immediate", "", f"the backup of {told(backup.stopped)}", 0
        )
    text = f"everything in the archive, which ends at {told(end.ended)}"
    return Choice(backup, timeline.number, "lsn", end.lsn, text, len(chain.segments))


def _backup_before(held: Repository, wish: Wish, timeline: Timeline) -> Backup:
    usable = held.usable(timeline)
    if wish.label:
        usable = [backup for backup in usable if backup.label == wish.label]
        if not usable:
            names = ", ".join(backup.label for backup in held.usable(timeline))
            raise Failed(
                f"there is no good backup {wish.label} on the way there",
                [f"there are: {names}", LIST],
            )
    early = [
        one for one in usable if wish.moment is None or one.stopped + BACKUP_ENDS <= wish.moment
    ]
    if early:
        return early[-1]
    first = usable[0].stopped + BACKUP_ENDS if usable else None
    since = (
        f"the earliest time that can be restored is {told(first)}" if first else "no backup fits"
    )
    raise Failed(f"{told(wish.moment)} lies before the first backup", [since, LIST])


def _checked(
    held: Repository, chain: Chain, wish: Wish, backup: Backup, say: Callable[[str], None]
) -> verification.Transaction | None:
    moment = wish.moment or datetime.max.replace(tzinfo=UTC)
    try:
        return verification.first_after(chain.segments, moment, held.number, say)
    except verification.Damaged as damaged:
        before = [one for one in chain.segments if one.number < damaged.segment.number]
        end = verification.last(before, held.number)
        raise Failed(
            damaged.observation, _offers(held, backup, end.ended if end else None)
        ) from None


def _offers(held: Repository, backup: Backup, end: datetime | None) -> list[str]:
    """Return what can be restored on both sides of a segment that is damaged or missing."""
    offers = []
    if end and end > backup.stopped + BACKUP_ENDS:
        offers.append(
            f"the last time before it that can be restored: --to {told(just_before(end))}"
        )
    elif backup != held.backups[0]:
        offers.append(f"an older backup ends earlier: --to {told(backup.started)}")
    after = [one for one in held.backups if one.started > (end or backup.stopped)]
    if after:
        offers.append(
            f"the first time after it that can be restored: --to {told(after[0].stopped + BACKUP_ENDS)}"
        )
    return [*offers, LIST, "docs/runbook.md#backup-failed-or-too-old"]


def _not_there(held: Repository, moment: datetime, chain: Chain) -> Failed:
    """Return the refusal of a moment in a gap, or after the archive's end."""
    ranges = held.ranges()
    earlier = [one.until for one in ranges if one.until <= moment]
    later = [one.since for one in ranges if one.since > moment]
    hints = [f"the nearest before it: --to {told(just_before(max(earlier)))}"] if earlier else []
    hints += [f"the nearest after it: --to {told(min(later))}"] if later else []
    if chain.missing:
        return Failed(f"the archive's segment {chain.missing} is missing", [*hints, LIST])
    return Failed(f"the archive ends before {told(moment)}", [*hints, LIST])


def just_before(moment: datetime) -> datetime:
    """Return the last moment before a transaction: recovery ends at the first one that is later than its target."""
    return moment - timedelta(microseconds=1)


def told(moment: datetime | None) -> str:
    """Return a time in the form that --to takes."""
    if moment is None:
        return "the newest"
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if moment.microsecond else "%Y-%m-%dT%H:%M:%SZ"
    return moment.strftime(form)
