"""The drill: restores the newest backup to a random time in a scratch directory.

It compares the restored database with the live one.
"""

import os
import random
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from backup import archive, pgbackrest, postgres, records, witness
from backup.failure import Failure
from backup.pgbackrest import LOCAL, NAMES, OFFSITE
from backup.restore import attempt, recovery, verification
from backup.restore.attempt import SILENT
from backup.restore.choice import BACKUP_ENDS, Repository, Wish, format_time

SCRATCH = Path("/var/lib/postgresql/scratch")
COUNT_SECONDS = 3600.0
# Stays free beside the copy, because Postgres usually writes to the same disk.
# Partner: DISK_PERCENT_LOW in backup/report.py
SPARE_PERCENT = 15.0
AFTER_SECONDS = 0.5
MAX_AHEAD_SECONDS = 10.0  # a backup that ended further in the future had a wrong clock
# A segment that is not off the host by then is late.
# Partner: ARCHIVE_LAG_SECONDS in backup/report.py
SHIPPED_SECONDS = 120.0
POLL_SECONDS = 0.2
TABLES = (
    "select format('%I.%I', schemaname, tablename) from pg_tables"
    " where schemaname not in ('pg_catalog', 'information_schema') order by 1"
)


def run(repository: int = LOCAL) -> tuple[str, dict[str, object]]:
    """Restore from a repository, compare and check.

    Returns:
        A line for the operator, and facts for the record.

    Raises:
        Failure: with the difference, or because the two cannot be compared.
    """
    started = time.monotonic()
    for folder in SCRATCH.glob("drill-*"):  # the remains of a killed drill
        shutil.rmtree(folder)
    wish = Wish(_choose_moment(repository), repository=repository)
    chosen = attempt.prove(wish, SILENT, reads_backup=repository == LOCAL)
    folder = SCRATCH / f"drill-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        attempt.restore(chosen, folder, SILENT, spare_percent=SPARE_PERCENT)
        with attempt.recover(chosen, folder, SILENT):
            ledger = compare_ledger(chosen.value)
            tables, rows = compare_tables(chosen.value)
            attempt.check(SILENT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the next drill deletes the remains
        reap_children()
    seconds = time.monotonic() - started
    text = (
        f"{chosen.backup.label} to {chosen.value} in {seconds:.0f} s:"
        f" {ledger} rows of the ledger, none too many, none missing;"
        f" {rows} rows in {tables} tables, every index sound"
    )
    return text, {
        "seconds": round(seconds, 1),
        "bytes": chosen.backup.database_bytes,
        "ledger": ledger,
        "tables": tables,
        "rows": rows,
    }


def _choose_moment(repository: int) -> datetime:
    """Return a random time between a repository's newest backup and its last transaction."""
    backups = pgbackrest.list_backups(repository)
    if not backups:
        raise Failure(f"the repository {NAMES[repository]} holds no backup")
    # A backup that has only just ended offers no time to restore until a row is written after it.
    ahead = (backups[-1].stopped + BACKUP_ENDS - datetime.now(UTC)).total_seconds()
    time.sleep(min(max(ahead, 0.0) + AFTER_SECONDS, MAX_AHEAD_SECONDS))
    witness.write_row()
    archive.archive_now(SILENT.report)
    if repository == OFFSITE:
        _wait_for_shipping()
    contents = Repository(repository)
    live = contents.archive.newest
    number = int(postgres.ask("select pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)
    if live.number != number:
        raise Failure(
            f"the repository {NAMES[repository]} has no segment yet of timeline {number},"
            " which is live"
        )
    usable = contents.list_usable(live)
    if not usable:
        raise Failure("no backup leads to the live database")
    since = max(usable[-1].stopped, _find_begin(contents, number)) + BACKUP_ENDS
    chain = contents.find_chain(usable[-1], live)
    if chain.missing:
        raise Failure(f"the archive's segment {chain.missing} is missing")
    end = verification.find_last(chain.segments, repository)
    if not end or end.ended <= since:
        end_of_backup = format_time(since)
        raise Failure(f"the archive ends before {end_of_backup}, the end of the newest backup")
    return since + (end.ended - since) * random.random()  # noqa: S311  no secret


def _wait_for_shipping() -> None:
    """Wait until the newest segment is off the host; after the limit, go on without it."""
    newest = postgres.ask("select last_archived_wal from pg_stat_archiver")[0][0]
    deadline = time.monotonic() + SHIPPED_SECONDS
    while time.monotonic() < deadline:
        shipped = str(records.read("shipping").facts.get("segment", ""))
        if shipped[:8] == newest[:8] and shipped >= newest:
            return
        time.sleep(POLL_SECONDS)


def _find_begin(contents: Repository, live: int) -> datetime:
    """Return when the timeline became live; the database before it had other rows.

    Asks the local archive too: a segment off the host has the time of its shipping, measured by
    another clock.
    """
    archives = [contents.archive]
    if contents.number != LOCAL:
        archives.append(Repository(LOCAL).archive)
    ends = [
        each.find_end(timeline) or 0.0
        for each in archives
        for timeline in each.timelines.values()
        if timeline.number != live
    ]
    return datetime.fromtimestamp(max(ends, default=0.0), UTC)


def compare_ledger(moment: str) -> int:
    """Compare the restored ledger with the rows that were committed up to a moment.

    Returns:
        The number of rows that both have.

    Raises:
        Failure: with the numbers of extra and missing rows, or because there is no row.
    """
    committed = f"pg_xact_commit_timestamp(xmin) <= '{moment}'"
    query = f"select id from slipway_ledger where {committed}"  # noqa: S608  a time
    expected = {int(row[0]) for row in postgres.ask(query)}
    if not expected:
        raise Failure(f"no row of the ledger was committed by {moment}: nothing can be compared")
    rows = postgres.ask("select id from slipway_ledger", socket=str(recovery.SOCKET))
    # The live ledger is pruned, so the restored one may hold older rows.
    restored = {int(row[0]) for row in rows if int(row[0]) >= min(expected)}
    if restored != expected:
        extra, missing = len(restored - expected), len(expected - restored)
        raise Failure(
            f"the ledger restored to {moment} has {extra} rows too many, and {missing} are missing"
        )
    return len(expected)


def compare_tables(moment: str) -> tuple[int, int]:
    """Compare each table of the application by its number of rows.

    A row that was there at the moment and is unchanged since must be in the restored table.

    Returns:
        The number of tables and the number of rows of the restored database.

    Raises:
        Failure: with the first table that has too few rows.
    """
    # A row without a commit timestamp is old: it is frozen, or from before Postgres recorded them.
    kept = f"count(*) filter (where coalesce(pg_xact_commit_timestamp(xmin) <= '{moment}', true))"
    needed = _count_rows(kept, postgres.SOCKET)
    restored = _count_rows("count(*)", str(recovery.SOCKET))
    for table, least in needed.items():
        count = restored.get(table, 0)
        if count < least:
            raise Failure(
                f"{table} restored to {moment} has {count} rows; at least {least} were there"
            )
    return len(restored), sum(restored.values())


def _count_rows(expression: str, socket: str) -> dict[str, int]:
    tables = [row[0] for row in postgres.ask(TABLES, database="slipway", socket=socket)]
    if not tables:
        raise Failure("the application's database has no table: nothing can be compared")
    counts = [
        f"select {number}, {expression} from {table}"  # noqa: S608  quoted by Postgres
        for number, table in enumerate(tables)
    ]
    rows = postgres.ask(
        " union all ".join(counts), database="slipway", socket=socket, seconds=COUNT_SECONDS
    )
    return {tables[int(number)]: int(count) for number, count in rows}


def reap_children() -> None:
    """Reap the processes of a drill's server, which have become children of process 1.

    Their session id differs from this process's. A program that this process started has the same
    session id, and is left to its caller, which waits for the exit code.
    """
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # the process has exited
            continue
        state, parent, _, session = fields[:4]
        if state == "Z" and int(parent) == os.getpid() == 1 and int(session) != os.getsid(0):
            os.waitpid(int(file.parent.name), os.WNOHANG)
