"""Proves before a restore that the files of a backup and each segment of WAL are there and as they were written."""

import hashlib
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backup import pgbackrest
from backup.archive import Segment
from backup.commands import TIMED_OUT, Failed, run
from backup.pgbackrest import STANZA, Backup

# `pgbackrest verify` ends with 0 whatever it finds: only these words say that it found nothing.
WELL = re.compile(r"^status: ok$", re.MULTILINE)
# What is wrong is tried again after 15 s by default; a broken file stays broken.
NO_RETRY = "--job-retry=0"
VERIFY_SECONDS = 6 * 3600.0  # 100 GB at 15 MB/s on a slow disk
FETCH_SECONDS = 120.0
DUMP_SECONDS = 120.0
AT_ONCE = 2  # segments of 16 MB in /tmp, of 64 MB (compose.yaml)
PROGRESS_SEGMENTS = 200
TRANSACTION = re.compile(
    r"lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+),.* desc: (?:COMMIT|ABORT)\w* .*?(?P<time>\d{4}-\d\d-\d\d [\d:]+\.\d+) UTC"
)


@dataclass(frozen=True)
class Transaction:
    """The end of a transaction in the WAL: where (LSN) and when."""

    lsn: str
    ended: datetime


class Damaged(Failed):
    """A segment that is not as it was written, or cannot be read."""

    def __init__(self, segment: Segment, reason: str) -> None:
        super().__init__(f"the archive's segment {segment.name} is damaged: {reason}")
        self.segment = segment


def backup_files(backup: Backup) -> None:
    """Compare every file of a backup, and of those that it builds on, with the checksum in the backup's manifest.

    Raises:
        Failed: where one is missing or differs.
    """
    words = [
        f"--set={backup.label}",
        "--output=text",
        "--verbose",
        NO_RETRY,
        "--log-level-console=info",
    ]
    done = pgbackrest.call("verify", *words, repository=backup.repository, seconds=VERIFY_SECONDS)
    if done.code == 0 and WELL.search(done.out):
        return
    if done.code == TIMED_OUT:
        raise Failed(
            f"the backup {backup.label} could not be checked within {VERIFY_SECONDS:.0f} s"
        )
    lines = [line.strip() for line in done.out.splitlines()]
    told = [
        line
        for line in lines
        if re.search(r"invalid|missing: [1-9]|other: [1-9]|ERROR|unable", line)
    ]
    raise Failed(f"the backup {backup.label} is damaged: {'; '.join(told[:3]) or done.reason}")


def damaged_copies(backup: Backup) -> list[str]:
    """Return the files of which one of two copies is damaged; pgBackRest reads the other one."""
    names = [
        f"archive/{STANZA}/archive.info",
        f"backup/{STANZA}/backup.info",
        f"backup/{STANZA}/{backup.label}/backup.manifest",
    ]
    return [name for name in names if _content(name, backup) != _content(f"{name}.copy", backup)]


def _content(name: str, backup: Backup) -> str:
    done = pgbackrest.call("repo-get", name, repository=backup.repository)
    return done.out if done.code == 0 else f"{name}: {done.reason}"


def transactions(segment: Segment, repository: int, *, wanted: bool = True) -> list[Transaction]:
    """Fetch a segment, compare it with the checksum in its name, and return the ends of transactions in it.

    `archive-get` alone is no proof: a changed byte in a compressed file may pass, and then gives other content.

    Raises:
        Damaged: where it cannot be fetched, or differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / segment.name
        words = [segment.name, str(file), NO_RETRY]
        done = pgbackrest.call("archive-get", *words, repository=repository, seconds=FETCH_SECONDS)
        if done.code != 0 or not file.exists():
            raise Damaged(segment, done.reason)
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha1").hexdigest() != segment.checksum:
                raise Damaged(segment, "its content differs from the checksum in its name")
        if not wanted:
            return []
        # It ends with 1 where the last record goes on in the next segment; what it printed until then counts.
        dump = run(["pg_waldump", "--rmgr=Transaction", str(file)], timeout=DUMP_SECONDS)
    return [
        Transaction(found["lsn"], datetime.fromisoformat(found["time"]).replace(tzinfo=UTC))
        for found in TRANSACTION.finditer(dump.out)
    ]


def first_after(
    segments: list[Segment], moment: datetime, repository: int, say: Callable[[str], None]
) -> Transaction | None:
    """Check segments in their order up to the one with the first transaction that ended after a moment; return that.

    Without a moment in them, all are checked and None is returned.

    Raises:
        Damaged: for the first that is damaged.
    """
    # A segment holds nothing that is younger than itself; a minute for clocks that differ.
    early = moment.timestamp() - 60
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin in range(0, len(segments), AT_ONCE):
            if begin and begin % PROGRESS_SEGMENTS == 0:
                say(f"{begin} of at most {len(segments)} segments")
            batch = segments[begin : begin + AT_ONCE]
            pending = [
                pool.submit(transactions, one, repository, wanted=one.archived >= early)
                for one in batch
            ]
            for task in pending:
                for one in task.result():
                    if one.ended > moment:
                        return one
    return None


def last(segments: list[Segment], repository: int) -> Transaction | None:
    """Return the last transaction of segments, looked for from their end."""
    for segment in reversed(segments):
        found = transactions(segment, repository)
        if found:
            return found[-1]
    return None
