"""The drill: restores the newest backup to a random time into a scratch directory, and compares it with what serves."""

import os
import random
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from backup import archive, ledger, postgres
from backup.commands import Failed
from backup.pgbackrest import LOCAL
from backup.restore import recovery, verification
from backup.restore.choice import BACKUP_ENDS, Repository, Wish, choose, told

SCRATCH = Path("/var/lib/postgresql/scratch")
COUNT_SECONDS = 3600.0
# Left free beside the copy, because Postgres as a rule writes to the same disk; partner: DISK_PERCENT_LOW.
SPARE_PERCENT = 15.0
AFTER_SECONDS = 0.5
MOST_SECONDS = 10.0  # a backup whose times lie further ahead is of a clock that was wrong
TABLES = (
    "select format('%I.%I', schemaname, tablename) from pg_tables"
    " where schemaname not in ('pg_catalog', 'information_schema') order by 1"
)


def run() -> tuple[str, dict[str, object]]:
    """Restore, compare and check; return a line for people and facts for the record.

    Raises:
        Failed: with what differs, or could not be looked at.
    """
    begun = time.monotonic()
    for left in SCRATCH.glob("drill-*"):  # of a drill that was killed
        shutil.rmtree(left)
    chosen = choose(Wish(_moment()), _ignore)
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
    return text, {"seconds": round(seconds, 1), "bytes": size, "ledger": rows, "tables": tables, "rows": count}


def _ignore(_: str) -> None:
    """Take no progress: the record tells how it ended."""


def _moment() -> datetime:
    """Return a random time between the newest backup and the last transaction in the archive."""
    held = Repository(LOCAL)
    serving = held.archive.newest
    usable = held.usable(serving)
    if not usable:
        raise Failed("no backup leads to the database that serves")
    # Not a moment of a database that was replaced: what serves has other rows than it.
    replaced = [held.archive.ended(one) or 0.0 for one in held.archive.timelines.values() if one != serving]
    began = datetime.fromtimestamp(max(replaced, default=0.0), UTC)
    since = max(usable[-1].stopped, began) + BACKUP_ENDS
    # A backup that has just ended: a row after it makes a time that can be restored.
    time.sleep(min(max((since - datetime.now(UTC)).total_seconds(), 0.0) + AFTER_SECONDS, MOST_SECONDS))
    ledger.write()
    archive.reach_now(_ignore)
    newest = max(Repository(LOCAL).ranges(), key=lambda one: one.until, default=None)
    if newest and newest.missing:
        raise Failed(f"the archive's segment {newest.missing} is missing")
    until = newest.until if newest else since
    if until <= since:
        raise Failed(f"the archive ends before {told(since)}, the end of the newest backup")
    return since + (until - since) * random.random()  # noqa: S311  no secret


def compare_ledger(moment: str) -> int:
    """Compare the restored ledger with the rows that were committed by a moment; return how many there are.

    Raises:
        Failed: with how many are too many and how many are missing, or where there is nothing to compare.
    """
    query = f"select id from slipway_ledger where pg_xact_commit_timestamp(xmin) <= '{moment}'"  # noqa: S608  a time
    expected = {int(row[0]) for row in postgres.ask(query)}
    if not expected:
        raise Failed(f"no row of the ledger was committed by {moment}: nothing can be compared")
    restored = {int(row[0]) for row in postgres.ask("select id from slipway_ledger", socket=str(recovery.SOCKET))}
    # What is older was pruned from the ledger that serves, and may still be in the restored one.
    restored = {one for one in restored if one >= min(expected)}
    if restored != expected:
        many, missing = len(restored - expected), len(expected - restored)
        raise Failed(f"the ledger restored to {moment} has {many} rows too many, and {missing} are missing")
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
            raise Failed(f"{table} restored to {moment} has {restored.get(table, 0)} rows; at least {least} were there")
    return len(restored), sum(restored.values())


def _counts(what: str, socket: str) -> dict[str, int]:
    tables = [row[0] for row in postgres.ask(TABLES, database="slipway", socket=socket)]
    if not tables:
        raise Failed("the application's database has no table: nothing can be compared")
    parts = [f"select {number}, {what} from {table}" for number, table in enumerate(tables)]  # noqa: S608  quoted
    rows = postgres.ask(" union all ".join(parts), database="slipway", socket=socket, seconds=COUNT_SECONDS)
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
