"""Finds the WAL segments that lead to a place on a timeline.

Each restore that becomes the database begins a new timeline.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backup import archive, pgbackrest
from backup.archive import HISTORY, LOG, SEGMENTS_PER_LOG, Segment
from backup.failure import Failure

SEGMENT_BYTES = 16 * 1024**2
# A line of a history file is a timeline and the LSN at which its successor begins:
# `1	0/3000000	no recovery target specified`
ANCESTOR = re.compile(r"^(\d+)\t([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)


@dataclass(frozen=True)
class Timeline:
    """A timeline with its ancestors: `begins` holds pairs of timeline and first LSN, oldest first.

    The last pair is the timeline's own.
    """

    number: int
    begins: tuple[tuple[int, int], ...]

    def exit_lsn(self, ancestor: int) -> int | None:
        """Return the LSN at which recovery leaves `ancestor`.

        It is 0 if recovery never passes through it, and None if recovery ends there.
        """
        for index, (number, _) in enumerate(self.begins):
            if number == ancestor:
                return self.begins[index + 1][1] if index + 1 < len(self.begins) else None
        return 0


@dataclass
class Chain:
    """Consecutive segments, starting with a backup's first segment.

    `missing` names the segment after them if it is missing but later segments exist.
    """

    segments: list[Segment]
    missing: str = ""


def parse_lsn(lsn: str) -> int:
    """Return an LSN as a number: 1/8000028 is 1 * 2^32 + 0x8000028."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_name(timeline: int, number: int) -> str:
    """Return the name of a segment by its position in the stream."""
    return f"{timeline:08X}{number // SEGMENTS_PER_LOG:08X}{number % SEGMENTS_PER_LOG:08X}"


@dataclass(frozen=True)
class Archive:
    """One database's WAL in one repository: segments by name, and timelines by number."""

    segments: dict[str, Segment]
    timelines: dict[int, Timeline]

    @property
    def newest(self) -> Timeline:
        """The timeline that was archived last, which is the live one.

        A timeline with a higher number may belong to a restore that was undone.
        """
        last = max(self.segments.values(), key=lambda segment: (segment.archived, segment.name))
        return self.timelines[int(last.name[:8], 16)]

    def find_timeline_at(self, moment: float) -> Timeline:
        """Return the timeline that was live at a moment, in seconds since 1970.

        The next segment that was archived belongs to it.
        """
        later = [segment for segment in self.segments.values() if segment.archived >= int(moment)]
        if not later:
            return self.newest
        first = min(later, key=lambda segment: (segment.archived, segment.name))
        return self.timelines[int(first.name[:8], 16)]

    def find_end(self, timeline: Timeline) -> float | None:
        """Return when a timeline was last archived, in seconds since 1970; None if it is live."""
        if timeline == self.newest:
            return None
        return max(
            (
                segment.archived
                for segment in self.segments.values()
                if int(segment.name[:8], 16) == timeline.number
            ),
            default=0.0,
        )

    def find_chain(self, timeline: Timeline, first: int) -> Chain:
        """Return the segments that recovery to a timeline reads, from number `first` on."""
        chain: list[Segment] = []
        for number, owners in _list_owners(timeline, first):
            names = [segment_name(owner, number) for owner in owners]
            existing = [self.segments[name] for name in names if name in self.segments]
            chain += existing[:1]
            # An ancestor's copy of this segment holds only the ancestor's part of it, so recovery
            # cannot continue after it.
            if not existing or existing[0].name != names[0]:
                is_gap = any(
                    segment.number > number
                    for segment in self.segments.values()
                    if segment.name[:8] == f"{timeline.number:08X}"
                )
                return Chain(chain, names[0] if is_gap else "")
        raise AssertionError  # the stream of numbers has no end


def _list_owners(timeline: Timeline, first: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each number with the timelines that may have that segment, in recovery's order."""
    number = first
    while True:
        begun = [
            (owner, lsn // SEGMENT_BYTES)
            for owner, lsn in timeline.begins
            if lsn // SEGMENT_BYTES <= number
        ]
        owners = [begun[-1][0]]
        for (_, begin), (parent, _) in zip(reversed(begun), reversed(begun[:-1]), strict=False):
            if begin != number:
                break
            owners.append(parent)
        yield number, owners
        number += 1


def read(database_id: str, repository: int, first: str) -> Archive:
    """Read one database's archive from the segment `first` on.

    Leaves out older segments: SFTP needs one request for each file, and weeks of WAL are 40,000
    files. Reads the newest folder of each timeline in any case, because it shows which timeline is
    live, and since when.

    Args:
        database_id: as in `pgbackrest.Backup`.

    Raises:
        Failure: when the repository cannot be read, or holds no segment.
    """
    segments: dict[str, Segment] = {}
    timelines = {}
    for database in archive.list_folder("", repository):
        if not database.endswith(f"-{database_id}"):
            continue
        entries = archive.list_folder(database, repository)
        for log in sorted(filter(LOG.fullmatch, entries), reverse=True):
            if log[8:] >= first[8:16] or not any(name[:8] == log[:8] for name in segments):
                listed = archive.list_segments(f"{database}/{log}", repository)
                segments |= {segment.name: segment for segment in listed}
        for history in filter(None, map(HISTORY.fullmatch, entries)):
            number = int(history[1], 16)
            content = _read_history(f"{database}/{history[0]}", repository)
            timelines[number] = Timeline(number, _parse_history(number, content))
    if not segments:
        raise Failure(
            "the archive holds no WAL",
            ["./scripts/status.sh", "docs/runbook.md#archive-not-progressing"],
        )
    for number in {int(name[:8], 16) for name in segments} - set(timelines):
        timelines[number] = Timeline(number, ((number, 0),))
    return Archive(segments, timelines)


def _parse_history(number: int, history: str) -> tuple[tuple[int, int], ...]:
    ancestors = [(int(ancestor), parse_lsn(lsn)) for ancestor, lsn in ANCESTOR.findall(history)]
    starts = [0, *(lsn for _, lsn in ancestors)]
    return tuple(zip([*(ancestor for ancestor, _ in ancestors), number], starts, strict=True))


def _read_history(path: str, repository: int) -> str:
    result = pgbackrest.call(
        "repo-get", f"archive/{pgbackrest.STANZA}/{path}", repository=repository or 1
    )
    if result.code != 0 or not ANCESTOR.search(result.out):
        raise Failure(f"the archive's {path} cannot be read: {result.reason}")
    return result.out
