"""Which segments of WAL lead to a place on a timeline; each restore that becomes the database begins a new timeline."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backup import archive, pgbackrest
from backup.archive import HISTORY, LOG, SEGMENTS_PER_LOG, Segment
from backup.commands import Failed

SEGMENT_BYTES = 16 * 1024**2
# As `1	0/3000000	no recovery target specified`: a timeline, and the place where it was left.
ANCESTOR = re.compile(r"^(\d+)\t([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)


@dataclass(frozen=True)
class Timeline:
    """A timeline and the way to it: `begins` holds timelines with the place (LSN) where each begins, oldest first."""

    number: int
    begins: tuple[tuple[int, int], ...]

    def left(self, ancestor: int) -> int | None:
        """Return the place (LSN) where the way leaves a timeline: 0 where it never was there, None for the last."""
        for index, (number, _) in enumerate(self.begins):
            if number == ancestor:
                return self.begins[index + 1][1] if index + 1 < len(self.begins) else None
        return 0


@dataclass
class Chain:
    """Segments without a hole, from the one a backup begins with; `missing` names the one after them, if one is."""

    segments: list[Segment]
    missing: str = ""


def place(lsn: str) -> int:
    """Return an LSN as a number: 1/8000028 is 1 * 2^32 + 0x8000028."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_name(timeline: int, number: int) -> str:
    """Return the name of a segment by its place in the stream."""
    return f"{timeline:08X}{number // SEGMENTS_PER_LOG:08X}{number % SEGMENTS_PER_LOG:08X}"


@dataclass(frozen=True)
class Archive:
    """What one repository holds of the WAL of one database: segments by name, and timelines by number."""

    held: dict[str, Segment]
    timelines: dict[int, Timeline]

    @property
    def newest(self) -> Timeline:
        """The timeline that was archived last: the one that serves. A higher number may have been taken back."""
        last = max(self.held.values(), key=lambda segment: (segment.archived, segment.name))
        return self.timelines[int(last.name[:8], 16)]

    def serving(self, moment: float) -> Timeline:
        """Return the timeline that served at a moment (seconds since 1970): the segment archived next is of it."""
        later = [segment for segment in self.held.values() if segment.archived >= int(moment)]
        if not later:
            return self.newest
        first = min(later, key=lambda segment: (segment.archived, segment.name))
        return self.timelines[int(first.name[:8], 16)]

    def ended(self, timeline: Timeline) -> float | None:
        """Return when a timeline was archived last, in seconds since 1970, where another one followed; else None."""
        if timeline == self.newest:
            return None
        return max(
            (
                one.archived
                for one in self.held.values()
                if int(one.name[:8], 16) == timeline.number
            ),
            default=0.0,
        )

    def chain(self, timeline: Timeline, first: int) -> Chain:
        """Return the segments from a number on, as recovery would ask for them on its way to a timeline."""
        found: list[Segment] = []
        for number, owners in _owners(timeline, first):
            names = [segment_name(owner, number) for owner in owners]
            held = [self.held[name] for name in names if name in self.held]
            found += held[:1]
            # From the timeline before, only its own part of that segment can be had: nothing may follow it.
            if not held or held[0].name != names[0]:
                beyond = [
                    one.number
                    for one in self.held.values()
                    if one.name[:8] == f"{timeline.number:08X}"
                ]
                return Chain(found, names[0] if any(other > number for other in beyond) else "")
        raise AssertionError  # the stream of numbers has no end


def _owners(timeline: Timeline, first: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each number with the timelines that may have that segment, the one that recovery prefers first."""
    number = first
    while True:
        begun = [
            (one, lsn // SEGMENT_BYTES)
            for one, lsn in timeline.begins
            if lsn // SEGMENT_BYTES <= number
        ]
        owners = [begun[-1][0]]
        for (_, here), (before, _) in zip(reversed(begun), reversed(begun[:-1]), strict=False):
            if here != number:
                break
            owners.append(before)
        yield number, owners
        number += 1


def read(identifier: str, repository: int, first: str) -> Archive:
    """Read what a repository holds of a database from a segment on; `identifier` is as for `archive.since`.

    Older ones are left out: SFTP asks once for each file, and weeks of them are 40,000. Of each timeline the newest are
    read in any case, by folders, for they tell which one serves, and since when.

    Raises:
        Failed: where the repository cannot be read, or holds no segment.
    """
    held: dict[str, Segment] = {}
    timelines = {}
    for database in archive.folder("", repository):
        inside = archive.folder(database, repository) if database.endswith(f"-{identifier}") else {}
        for log in sorted(filter(LOG.fullmatch, inside), reverse=True):
            if log[8:] >= first[8:16] or not any(name[:8] == log[:8] for name in held):
                held |= {one.name: one for one in archive.segments(f"{database}/{log}", repository)}
        for named in filter(None, map(HISTORY.fullmatch, inside)):
            number = int(named[1], 16)
            timelines[number] = Timeline(
                number, _begins(number, _content(f"{database}/{named[0]}", repository))
            )
    if not held:
        raise Failed(
            "the archive holds no WAL",
            ["./scripts/status.sh", "docs/runbook.md#archive-not-progressing"],
        )
    for number in {int(name[:8], 16) for name in held} - set(timelines):
        timelines[number] = Timeline(number, ((number, 0),))
    return Archive(held, timelines)


def _begins(number: int, history: str) -> tuple[tuple[int, int], ...]:
    left = [(int(one), place(lsn)) for one, lsn in ANCESTOR.findall(history)]
    starts = [0, *(lsn for _, lsn in left)]
    return tuple(zip([*(one for one, _ in left), number], starts, strict=True))


def _content(path: str, repository: int) -> str:
    done = pgbackrest.call(
        "repo-get", f"archive/{pgbackrest.STANZA}/{path}", repository=repository or 1
    )
    if done.code != 0 or not ANCESTOR.search(done.out):
        raise Failed(f"the archive's {path} cannot be read: {done.reason}")
    return done.out
