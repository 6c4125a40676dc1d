"""Which segments of WAL a repository holds, and which are missing; segments are files of 16 MB, numbered."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from backup import pgbackrest, postgres
from backup.commands import Failed

ARCHIVED_SECONDS = 30.0
SEGMENTS_PER_LOG = 256  # of 16 MB each, the size that initdb chose
# As 000000010000000000000002-<SHA-1>.zst: timeline, log, segment.
NAME = re.compile(r"(?P<segment>[0-9A-F]{24})-(?P<checksum>[0-9a-f]{40})(?:\.\w+)?")

LOG = re.compile(r"[0-9A-F]{16}")  # a folder: timeline and log
HISTORY = re.compile(r"([0-9A-F]{8})\.history")  # the way to a timeline


@dataclass(frozen=True)
class Segment:
    """A segment in a repository: its name, the SHA-1 of its content, and its path in the repository."""

    name: str
    checksum: str
    path: str
    archived: float  # seconds since 1970

    @property
    def number(self) -> int:
        """Its place in the stream of WAL, whatever the timeline."""
        return number(self.name)


def number(name: str) -> int:
    """Return a segment's place in the stream of WAL: 00000001 00000002 00000003 is 2 * 256 + 3."""
    return int(name[8:16], 16) * SEGMENTS_PER_LOG + int(name[16:24], 16)


def folder(path: str, repository: int = pgbackrest.LOCAL) -> dict[str, dict[str, object]]:
    """Return what one folder below the stanza's holds, by name, without what is below that.

    Raises:
        Failed: where the repository cannot be read.
    """
    done = pgbackrest.call(
        "repo-ls", "--output=json", f"archive/{pgbackrest.STANZA}/{path}", repository=repository
    )
    if done.code != 0:
        raise Failed(f"the archive cannot be listed: {done.reason}")
    return {name: entry for name, entry in json.loads(done.out).items() if name != "."}


def segments(path: str, repository: int = pgbackrest.LOCAL) -> list[Segment]:
    """Return the segments in one folder below the stanza's.

    Raises:
        Failed: where the repository cannot be read.
    """
    found = [segment(f"{path}/{name}", entry) for name, entry in folder(path, repository).items()]
    return [one for one in found if one]


def segment(path: str, entry: dict[str, object]) -> Segment | None:
    """Return the segment that an entry of a listing is, or None where it is something else."""
    name, time = NAME.fullmatch(path.rpartition("/")[2]), entry.get("time")
    if not name:
        return None
    return Segment(
        name["segment"],
        name["checksum"],
        path,
        float(time) if isinstance(time, int | float) else 0.0,
    )


def since(name: str, identifier: str, repository: int = pgbackrest.LOCAL) -> list[Segment]:
    """Return the segments of one database from a segment on, in the order of the stream.

    An upgrade of Postgres begins another database under the same stanza, with numbers that begin anew; `identifier` is
    the last part of its folder, as 1 of 17-1.

    Only the folders that can hold them are listed, of 256 segments each: a year of WAL is more than the memory takes.

    Raises:
        Failed: where the repository cannot be read.
    """
    found = []
    for database in folder("", repository):
        if not database.endswith(f"-{identifier}"):
            continue
        for log in folder(database, repository):
            if LOG.fullmatch(log) and log[8:16] >= name[8:16]:
                found += segments(f"{database}/{log}", repository)
    held = [one for one in found if one.number >= number(name)]
    return sorted(held, key=lambda one: (one.number, one.name))


def gaps(held: list[Segment], first: str) -> list[tuple[int, int]]:
    """Return the ranges of numbers that are missing between a segment and the newest, both ends among the missing.

    The timeline that was archived last is the one that serves. What an older one holds beyond its begin belongs to a
    database that was replaced.
    """
    if not held:
        return []
    serving = max(held, key=lambda one: (one.archived, one.name)).name[:8]
    begins = min(one.number for one in held if one.name[:8] == serving)
    way = [
        one
        for one in held
        if one.name[:8] == serving or (one.name[:8] < serving and one.number <= begins)
    ]
    numbers = sorted({one.number for one in way if one.number >= number(first)})
    missing = []
    expected = number(first)
    for found in numbers:
        if found > expected:
            missing.append((expected, found - 1))
        expected = found + 1
    return missing


def reach_now(say: Callable[[str], None]) -> None:
    """Have the running server archive what it has: the second before a mistake is as a rule not in the archive yet."""
    try:
        # A number of its own gives this transaction a record with its time, so that the archive reaches until now.
        postgres.ask("select pg_current_xact_id()")
        [[name]] = postgres.ask("select pg_walfile_name(pg_switch_wal())")
    except Failed as failed:
        say(f"only what is archived can be restored, because the server does not answer: {failed}")
        return
    deadline = time.monotonic() + ARCHIVED_SECONDS
    while time.monotonic() < deadline:
        if postgres.ask("select last_archived_wal from pg_stat_archiver")[0][0] >= name:
            return
        time.sleep(0.2)
    say(f"(!) the server does not archive: {name} waits; only what is archived can be restored")
