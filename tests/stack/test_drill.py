"""The drill passes on an intact archive and fails on each kind of loss."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.stack.backup_incidents import REPOSITORY, backup_row
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.drill

# Waits up to a minute until a drill has chosen its time and restores.
AWAIT_RESTORE = """
left=3000
until ls -d /var/lib/postgresql/scratch/drill-* >/dev/null 2>&1; do
    left=$((left - 1)); [ $left -gt 0 ]
    sleep 0.02
done
"""
DELETE = """
psql -qX --host=/run/postgresql --username=postgres --dbname=postgres \
    --command "delete from slipway_ledger where id = {}"
"""
# Blocks the drill's comparison until the copy has been changed.
CHANGE = """
export CHANGE="$1"
psql -qX --host=/run/postgresql --username=postgres --dbname=postgres --set=ON_ERROR_STOP=1 <<'END'
begin;
lock table slipway_ledger;
\\! for _ in $(seq 600); do psql -qX --host=/tmp/recovery --username=postgres --dbname=slipway \
--set=ON_ERROR_STOP=1 --command "$CHANGE" 2>/dev/null && break; sleep 0.1; done
commit;
END
"""
# An index whose operator class has changed its order, as after an upgrade of the system's
# collations.
UNSORTED = """
create function compared(a int, b int) returns int language sql immutable strict
    as 'select btint4cmp(a, b)';
create operator class turned for type int using btree
    as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >,
    function 1 compared(int, int);
create table sorted as select generate_series(1, 1000) as id;
create index on sorted (id turned);
create or replace function compared(a int, b int) returns int language sql immutable strict
    as 'select btint4cmp(b, a)';
"""


def drill(stack: Stack) -> dict[str, Any]:
    """Run a drill; return its record."""
    stack.run("./scripts/drill.sh", "restore", check=False)
    shown = stack.compose("exec", "--no-TTY", "backup", "cat", "/var/lib/pgbackrest/drill.json")
    return dict(json.loads(shown))


def sh(stack: Stack, script: str, *words: str) -> str:
    return stack.compose("exec", "--no-TTY", "backup", "sh", "-euc", script, "sh", *words).strip()


def ledger(stack: Stack, query: str) -> str:
    psql = [
        "psql",
        "-qtAX",
        "--host=/tmp",
        "--username=postgres",
        "--dbname=postgres",
        "--command",
        query,
    ]
    return stack.compose("exec", "--no-TTY", "postgres", *psql).strip()


@pytest.fixture
def backed_up(stack: Stack) -> Iterator[None]:
    """Take a backup, and write rows to the ledger; take another backup after the test's damage."""
    stack.run("./scripts/backup.sh", "--full")
    wait_until(
        lambda: ledger(stack, "select to_regclass('slipway_ledger')") != "",
        60,
        "the ledger is there",
        every=1,
    )
    for _ in range(3):  # as the service does every ten seconds
        ledger(stack, "insert into slipway_ledger default values")
    yield
    stack.run("./scripts/backup.sh", "--full")
    assert drill(stack)["is_well"], "the new backup starts after the damage"


@pytest.mark.usefixtures("backed_up")
def test_a_drill_restores_a_random_time_and_finds_exactly_what_was_committed(stack: Stack) -> None:
    record = drill(stack)
    assert record["is_well"], record["text"]
    assert record["facts"]["ledger"] >= 1
    assert record["facts"]["tables"] >= 10
    assert record["facts"]["rows"] >= 1
    assert sh(stack, "ls /var/lib/postgresql/scratch") == "", "the copy is removed"
    assert backup_row(stack, "drill")[0]
    print(f"measured: drill: {record['text']}")


def test_a_drill_right_after_a_backup_finds_a_time_to_restore(stack: Stack) -> None:
    wait_until(
        lambda: ledger(stack, "select to_regclass('slipway_ledger')") != "",
        60,
        "the ledger is there",
        every=1,
    )
    stack.run("./scripts/backup.sh", "--full")
    record = drill(stack)
    assert record["is_well"], record["text"]


@pytest.mark.usefixtures("backed_up")
def test_a_drill_sees_a_row_too_many_and_a_row_too_few(stack: Stack) -> None:
    """The test changes the live ledger, so that it differs from the archived ledger.

    The test makes the change while the drill restores. The drill has then chosen its time, which
    is before the change; a restore to a later time would correctly contain the change.
    """
    # A row with a known commit time: the drill does not compare the rows before the first such row.
    known = "from slipway_ledger where pg_xact_commit_timestamp(xmin) is not null"
    one = ledger(stack, f"select id {known} order by id offset 1 limit 1")
    with ThreadPoolExecutor() as threads:
        deleted = threads.submit(sh, stack, AWAIT_RESTORE + DELETE.format(one))
        record = drill(stack)
        deleted.result()
    assert not record["is_well"]
    assert "1 rows too many, and 0 are missing" in record["text"]
    assert not backup_row(stack, "drill")[0]
    last_success = record["last_success"]
    assert last_success < record["ended"]
    ledger(stack, f"insert into slipway_ledger overriding system value values ({one}, now())")


@pytest.mark.nightly  # the test of added and deleted rows runs in every change
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "truncate users cascade",
            r"public\.\w+ restored to .* has 0 rows; at least \d+ were there",
        ),
        (
            UNSORTED,
            r"the restored database is corrupt: .*item order invariant violated for index "
            r".*sorted_id_idx",
        ),
    ],
)
def test_a_drill_sees_rows_that_are_not_there_and_an_index_that_is_wrong(
    stack: Stack, change: str, reason: str
) -> None:
    with ThreadPoolExecutor() as threads:
        changed = threads.submit(sh, stack, AWAIT_RESTORE + CHANGE, change)
        record = drill(stack)
        changed.result()
    assert not record["is_well"]
    assert re.search(reason, record["text"], re.DOTALL), record["text"]
    assert drill(stack)["is_well"]


@pytest.mark.usefixtures("backed_up")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            "f=$(ls -d backup/main/*F | tail -1)/bundle/1; dd if=/dev/zero of=$f bs=1 "
            "seek=4000 count=16 conv=notrunc",
            "",
        ),
        pytest.param(
            "rm $(ls archive/main/*/*/*.zst | tail -2 | head -1)",
            "missing",
            marks=pytest.mark.nightly,  # a restore with a missing segment is tested in every change
        ),
    ],
)
def test_a_drill_fails_where_the_repository_is_damaged(
    stack: Stack, damage: str, reason: str
) -> None:
    for number in range(4):
        stack.sql(f"create temporary table a as select {number}")
        stack.sql("select pg_switch_wal()")
    sh(stack, f"cd {REPOSITORY}; {damage} 2>/dev/null")
    record = drill(stack)
    assert not record["is_well"], record["text"]
    assert reason in record["text"]
    assert not backup_row(stack, "drill")[0]
