"""Lists the WAL segments in a repository and finds the missing ones.

A segment is a numbered file of 16 MB.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from backup import pgbackrest, postgres
from backup.failure import Failure

ARCHIVED_SECONDS = 30.0
SEGMENTS_PER_LOG = 256  # of 16 MB each, initdb's default
# For example 000000010000000000000002-<SHA-1>.zst: the name is timeline, log and number.
NAME = re.compile(r"(?P<segment>[0-9A-F]{24})-(?P<checksum>[0-9a-f]{40})(?:\.\w+)?")

LOG = re.compile(r"[0-9A-F]{16}")  # a folder: timeline and log
HISTORY = re.compile(r"([0-9A-F]{8})\.history")  # the ancestors of a timeline


@dataclass(frozen=True)
class Segment:
    """A segment in a repository: its name, its content's SHA-1, and its path in the repository."""

    name: str
    checksum: str
    path: str
    archived: float  # seconds since 1970

    @property
    def number(self) -> int:
        """Its position in the stream of WAL, on any timeline."""
        return segment_number(self.name)


def segment_number(name: str) -> int:
    """Return a segment's position in the stream of WAL: 00000001 00000002 00000003 is 2*256+3."""
    return int(name[8:16], 16) * SEGMENTS_PER_LOG + int(name[16:24], 16)


def list_folder(path: str, repository: int = pgbackrest.LOCAL) -> dict[str, dict[str, object]]:
    """Return the entries of a folder in the stanza's folder, by name; subfolders are not read.

    Raises:
        Failure: when the repository cannot be read.
    """
    result = pgbackrest.call(
        "repo-ls", "--output=json", f"archive/{pgbackrest.STANZA}/{path}", repository=repository
    )
    if result.code != 0:
        raise Failure(f"the archive cannot be listed: {result.reason}")
    return {name: entry for name, entry in json.loads(result.out).items() if name != "."}


def list_segments(path: str, repository: int = pgbackrest.LOCAL) -> list[Segment]:
    """Return the segments in a folder in the stanza's folder.

    Raises:
        Failure: when the repository cannot be read.
    """
    entries = list_folder(path, repository)
    segments = [parse_segment(f"{path}/{name}", entry) for name, entry in entries.items()]
    return [segment for segment in segments if segment]


def parse_segment(path: str, entry: dict[str, object]) -> Segment | None:
    """Return the segment that an entry of a listing describes, or None for another file."""
    name, archived = NAME.fullmatch(path.rpartition("/")[2]), entry.get("time")
    if not name:
        return None
    return Segment(
        name["segment"],
        name["checksum"],
        path,
        float(archived) if isinstance(archived, int | float) else 0.0,
    )


def list_segments_from(
    first: str, database_id: str, repository: int = pgbackrest.LOCAL
) -> list[Segment]:
    """Return the segments of one database from the segment `first` on, in the stream's order.

    Reads only the folders that can hold them, of 256 segments each: the listing of a year of WAL
    would not fit into the container's memory.

    Args:
        first: a segment's name.
        database_id: as in `Backup`. An upgrade of Postgres begins another database in the same
            stanza, whose segments are numbered from 1 again.

    Raises:
        Failure: when the repository cannot be read.
    """
    segments = []
    for database in list_folder("", repository):
        if not database.endswith(f"-{database_id}"):
            continue
        for log in list_folder(database, repository):
            if LOG.fullmatch(log) and log[8:16] >= first[8:16]:
                segments += list_segments(f"{database}/{log}", repository)
    segments = [segment for segment in segments if segment.number >= segment_number(first)]
    return sorted(segments, key=lambda segment: (segment.number, segment.name))


def find_gaps(segments: list[Segment], first: str) -> list[tuple[int, int]]:
    """Return the ranges of numbers missing between the segment `first` and the newest, inclusive.

    The timeline that was archived last is the live one. The segments of an older timeline that lie
    after the start of the live one belong to a database that was replaced, and do not count.
    """
    if not segments:
        return []
    live = max(segments, key=lambda segment: (segment.archived, segment.name)).name[:8]
    begin = min(segment.number for segment in segments if segment.name[:8] == live)
    numbers = sorted(
        {
            segment.number
            for segment in segments
            if segment.number >= segment_number(first)
            and (segment.name[:8] == live or (segment.name[:8] < live and segment.number <= begin))
        }
    )
    gaps = []
    expected = segment_number(first)
    for number in numbers:
        if number > expected:
            gaps.append((expected, number - 1))
        expected = number + 1
    return gaps


def archive_now(report: Callable[[str], None]) -> None:
    """Make the running server archive all its WAL.

    Without this, the last seconds before a mistake would usually not be in the archive yet.
    """
    try:
        # The id makes Postgres write the transaction's end and its time to the WAL, so that the
        # archive contains a transaction of this moment.
        postgres.ask("select pg_current_xact_id()")
        [[name]] = postgres.ask("select pg_walfile_name(pg_switch_wal())")
    except Failure as failure:
        report(f"the server does not answer, so only archived WAL can be restored: {failure}")
        return
    deadline = time.monotonic() + ARCHIVED_SECONDS
    while time.monotonic() < deadline:
        if postgres.ask("select last_archived_wal from pg_stat_archiver")[0][0] >= name:
            return
        time.sleep(0.2)
    report(f"(!) the server does not archive {name}, so only archived WAL can be restored")
