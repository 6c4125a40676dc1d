"""Proves before a restore that a backup's files and each WAL segment are there and unchanged."""

import hashlib
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backup import pgbackrest, programs
from backup.archive import Segment
from backup.failure import Failure
from backup.pgbackrest import STANZA, Backup
from backup.programs import TIMED_OUT

# `pgbackrest verify` always exits with 0: only this text shows that it detected no fault.
WELL = re.compile(r"^status: ok$", re.MULTILINE)
# pgBackRest retries after 15 s by default, but a damaged file stays damaged.
NO_RETRY = "--job-retry=0"
VERIFY_SECONDS = 6 * 3600.0  # 100 GB at 15 MB/s on a slow disk
FETCH_SECONDS = 120.0
DUMP_SECONDS = 120.0
AT_ONCE = 2  # segments of 16 MB in /tmp, which has 64 MB (compose.yaml)
PROGRESS_SEGMENTS = 200
TRANSACTION = re.compile(
    r"lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+),.*"
    r" desc: (?:COMMIT|ABORT)\w* .*?(?P<time>\d{4}-\d\d-\d\d [\d:]+\.\d+) UTC"
)


@dataclass(frozen=True)
class Transaction:
    """The end of a transaction in the WAL: its LSN and its time."""

    lsn: str
    ended: datetime


class DamagedSegment(Failure):
    """A segment that differs from its checksum, or cannot be read."""

    def __init__(self, segment: Segment, reason: str) -> None:
        super().__init__(f"the archive's segment {segment.name} is damaged: {reason}")
        self.segment = segment


class UnverifiedBackup(Failure):
    """A backup that is damaged, or whose check takes too long."""

    def __init__(self, backup: Backup, reason: str) -> None:
        super().__init__(f"the backup {backup.label} {reason}")
        self.backup = backup


def verify_backup(backup: Backup) -> None:
    """Compare every file of a backup, and of those it builds on, with the manifest's checksums.

    Raises:
        UnverifiedBackup: when a file is missing or differs.
    """
    options = [
        f"--set={backup.label}",
        "--output=text",
        "--verbose",
        NO_RETRY,
        "--log-level-console=info",
    ]
    result = pgbackrest.call(
        "verify", *options, repository=backup.repository, seconds=VERIFY_SECONDS
    )
    if result.code == 0 and WELL.search(result.out):
        return
    if result.code == TIMED_OUT:
        raise UnverifiedBackup(backup, f"could not be checked within {VERIFY_SECONDS:.0f} s")
    faults = [
        line.strip()
        for line in result.out.splitlines()
        if re.search(r"invalid|missing: [1-9]|other: [1-9]|ERROR|unable", line)
    ]
    reason = "; ".join(faults[:3]) or result.reason
    raise UnverifiedBackup(backup, f"is damaged: {reason}")


def list_damaged_copies(backup: Backup) -> list[str]:
    """Return the files of which one of two copies is damaged; pgBackRest reads the other one."""
    names = [
        f"archive/{STANZA}/archive.info",
        f"backup/{STANZA}/backup.info",
        f"backup/{STANZA}/{backup.label}/backup.manifest",
    ]
    return [
        name for name in names if _read_file(name, backup) != _read_file(f"{name}.copy", backup)
    ]


def _read_file(name: str, backup: Backup) -> str:
    result = pgbackrest.call("repo-get", name, repository=backup.repository)
    return result.out if result.code == 0 else f"{name}: {result.reason}"


def read_transactions(
    segment: Segment, repository: int, *, wanted: bool = True
) -> list[Transaction]:
    """Fetch a segment, compare it with the checksum in its name, and return its transactions.

    `archive-get` alone proves nothing: it may accept a changed byte in a compressed file, and then
    return other content.

    Args:
        wanted: False to check the segment only, and return no transactions.

    Raises:
        DamagedSegment: when it cannot be fetched, or differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / segment.name
        words = [segment.name, str(file), NO_RETRY]
        result = pgbackrest.call(
            "archive-get", *words, repository=repository, seconds=FETCH_SECONDS
        )
        if result.code != 0 or not file.exists():
            raise DamagedSegment(segment, result.reason)
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha1").hexdigest() != segment.checksum:
                raise DamagedSegment(segment, "its content differs from the checksum in its name")
        if not wanted:
            return []
        # pg_waldump exits with 1 if the last record continues in the next segment, so only its
        # output counts.
        dump = programs.run(["pg_waldump", "--rmgr=Transaction", str(file)], timeout=DUMP_SECONDS)
    return [
        Transaction(record["lsn"], datetime.fromisoformat(record["time"]).replace(tzinfo=UTC))
        for record in TRANSACTION.finditer(dump.out)
    ]


def find_first_after(
    segments: list[Segment], moment: datetime, repository: int, report: Callable[[str], None]
) -> Transaction | None:
    """Return the first transaction that ended after a moment; check every segment up to it.

    Checks all segments and returns None if there is no such transaction.

    Raises:
        DamagedSegment: for the first damaged segment.
    """
    # A segment contains no record that is newer than its file; one minute allows for clocks that
    # differ.
    early = moment.timestamp() - 60
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin in range(0, len(segments), AT_ONCE):
            if begin and begin % PROGRESS_SEGMENTS == 0:
                report(f"{begin} of at most {len(segments)} segments")
            pending = [
                pool.submit(
                    read_transactions, segment, repository, wanted=segment.archived >= early
                )
                for segment in segments[begin : begin + AT_ONCE]
            ]
            for future in pending:
                for transaction in future.result():
                    if transaction.ended > moment:
                        return transaction
    return None


def find_last(segments: list[Segment], repository: int) -> Transaction | None:
    """Return the last transaction in the segments; reads them from the end."""
    for segment in reversed(segments):
        transactions = read_transactions(segment, repository)
        if transactions:
            return transactions[-1]
    return None
