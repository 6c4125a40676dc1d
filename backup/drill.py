"""The drill: restores the newest backup to a random time into a scratch directory, and compares it with what serves."""

import os
import random
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from backup import archive, ledger, pgbackrest, postgres, records
from backup.commands import Failed
from backup.pgbackrest import LOCAL, NAMES, OFFSITE
from backup.restore import recovery, verification
from backup.restore.choice import BACKUP_ENDS, Repository, Wish, choose, told

SCRATCH = Path("/var/lib/postgresql/scratch")
COUNT_SECONDS = 3600.0
# Left free beside the copy, because Postgres as a rule writes to the same disk; partner: DISK_PERCENT_LOW.
SPARE_PERCENT = 15.0
AFTER_SECONDS = 0.5
MOST_SECONDS = 10.0  # a backup whose times lie further ahead is of a clock that was wrong
SHIPPED_SECONDS = (
    120.0  # a segment that is not off the host by then is late; partner: ARCHIVE_LAG_SECONDS
)
LOOK_SECONDS = 0.2
TABLES = (
    "select format('%I.%I', schemaname, tablename) from pg_tables"
    " where schemaname not in ('pg_catalog', 'information_schema') order by 1"
)


def run(repository: int = LOCAL) -> tuple[str, dict[str, object]]:
    """Restore from a repository, compare and check; return a line for people and facts for the record.

    Raises:
        Failed: with what differs, or could not be looked at.
    """
    begun = time.monotonic()
    for left in SCRATCH.glob("drill-*"):  # of a drill that was killed
        shutil.rmtree(left)
    chosen = choose(Wish(_moment(repository), repository=repository), _ignore)
    if (
        repository == LOCAL
    ):  # off the host a byte that is read may cost money, and the restore compares each file, too
        verification.backup_files(chosen.backup)
    recovery.check_space(chosen, SCRATCH, spare_percent=SPARE_PERCENT)
    folder = SCRATCH / f"drill-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        recovery.restore(chosen, folder, _ignore)
        recovery.recover(folder)
        try:
            rows = compare_ledger(chosen.value)
            tables, count = compare_tables(chosen.value)
            recovery.check_tables()
        finally:
            recovery.stop(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the next drill deletes what is left
        reap()
    seconds = time.monotonic() - begun
    text = (
        f"{chosen.backup.label} to {chosen.value} in {seconds:.0f} s: {rows} rows of the ledger, none too many, none"
        f" missing; {count} rows in {tables} tables, every index sound"
    )
    size = chosen.backup.database_bytes
    return text, {
        "seconds": round(seconds, 1),
        "bytes": size,
        "ledger": rows,
        "tables": tables,
        "rows": count,
    }


def _ignore(_: str) -> None:
    """Take no progress: the record tells how it ended."""


def _moment(repository: int) -> datetime:
    """Return a random time between a repository's newest backup and the last transaction in its archive."""
    made = pgbackrest.backups(repository)
    if not made:
        raise Failed(f"the repository {NAMES[repository]} holds no backup")
    # A backup that has just ended: a row after it makes a time that can be restored.
    ahead = (made[-1].stopped + BACKUP_ENDS - datetime.now(UTC)).total_seconds()
    time.sleep(min(max(ahead, 0.0) + AFTER_SECONDS, MOST_SECONDS))
    ledger.write()
    archive.reach_now(_ignore)
    if repository == OFFSITE:
        _await_shipping()
    held = Repository(repository)
    serving = held.archive.newest
    number = int(postgres.ask("select pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)
    if serving.number != number:
        raise Failed(
            f"the repository {NAMES[repository]} has nothing yet of timeline {number}, which serves"
        )
    usable = held.usable(serving)
    if not usable:
        raise Failed("no backup leads to the database that serves")
    since = max(usable[-1].stopped, _began(held, number)) + BACKUP_ENDS
    chain = held.chain(usable[-1], serving)
    if chain.missing:
        raise Failed(f"the archive's segment {chain.missing} is missing")
    end = verification.last(chain.segments, repository)
    if not end or end.ended <= since:
        raise Failed(f"the archive ends before {told(since)}, the end of the newest backup")
    return since + (end.ended - since) * random.random()  # noqa: S311  no secret


def _await_shipping() -> None:
    """Wait until the newest segment is off the host; where it does not get there, what is there counts."""
    newest = postgres.ask("select last_archived_wal from pg_stat_archiver")[0][0]
    deadline = time.monotonic() + SHIPPED_SECONDS
    while time.monotonic() < deadline:
        shipped = str(records.read("shipping").facts.get("segment", ""))
        if shipped[:8] == newest[:8] and shipped >= newest:
            return
        time.sleep(LOOK_SECONDS)


def _began(held: Repository, serving: int) -> datetime:
    """Return since when a timeline serves; before, it was a database that was replaced, which has other rows.

    By this host's archive, too: off the host a segment has the time at which it was shipped, by a clock of the place.
    """
    known = [held.archive] if held.number == LOCAL else [held.archive, Repository(LOCAL).archive]
    replaced = [
        one.ended(each) or 0.0
        for one in known
        for each in one.timelines.values()
        if each.number != serving
    ]
    return datetime.fromtimestamp(max(replaced, default=0.0), UTC)


def compare_ledger(moment: str) -> int:
    """Compare the restored ledger with the rows that were committed by a moment; return how many there are.

    Raises:
        Failed: with how many are too many and how many are missing, or where there is nothing to compare.
    """
    query = f"select id from slipway_ledger where pg_xact_commit_timestamp(xmin) <= '{moment}'"  # noqa: S608  a time
    expected = {int(row[0]) for row in postgres.ask(query)}
    if not expected:
        raise Failed(f"no row of the ledger was committed by {moment}: nothing can be compared")
    restored = {
        int(row[0])
        for row in postgres.ask("select id from slipway_ledger", socket=str(recovery.SOCKET))
    }
    # What is older was pruned from the ledger that serves, and may still be in the restored one.
    restored = {one for one in restored if one >= min(expected)}
    if restored != expected:
        many, missing = len(restored - expected), len(expected - restored)
        raise Failed(
            f"the ledger restored to {moment} has {many} rows too many, and {missing} are missing"
        )
    return len(expected)


def compare_tables(moment: str) -> tuple[int, int]:
    """Compare each table of the application: what was there by a moment and is unchanged since must be restored.

    Returns:
        How many tables and how many rows the restored database has.

    Raises:
        Failed: naming the first table that has too few rows.
    """
    # A row from before commit timestamps were kept, or frozen since, has none: it is old.
    kept = f"count(*) filter (where coalesce(pg_xact_commit_timestamp(xmin) <= '{moment}', true))"
    needed = _counts(kept, postgres.SOCKET)
    restored = _counts("count(*)", str(recovery.SOCKET))
    for table, least in needed.items():
        if restored.get(table, 0) < least:
            raise Failed(
                f"{table} restored to {moment} has {restored.get(table, 0)} rows; at least {least} were there"
            )
    return len(restored), sum(restored.values())


def _counts(what: str, socket: str) -> dict[str, int]:
    tables = [row[0] for row in postgres.ask(TABLES, database="slipway", socket=socket)]
    if not tables:
        raise Failed("the application's database has no table: nothing can be compared")
    parts = [f"select {number}, {what} from {table}" for number, table in enumerate(tables)]  # noqa: S608  quoted
    rows = postgres.ask(
        " union all ".join(parts), database="slipway", socket=socket, seconds=COUNT_SECONDS
    )
    return {tables[int(number)]: int(count) for number, count in rows}


def reap() -> None:
    """Collect what a drill's server has left: whoever started it is gone, so they are children of process 1.

    They are told by their session. One of this process' own has its session, and its starter waits for its exit code.
    """
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        state, parent, _, session = fields[:4]
        if state == "Z" and int(parent) == os.getpid() == 1 and int(session) != os.getsid(0):
            os.waitpid(int(file.parent.name), os.WNOHANG)
