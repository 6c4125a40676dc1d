"""The drill passes on a sound archive, and each kind of loss makes it fail; in `soak`, twenty random times of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.backup_incidents import REPOSITORY, backup_row
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.drill


def drill(stack: Stack) -> dict[str, Any]:
    """Run a drill; return its record."""
    stack.run("./scripts/drill.sh", "restore", check=False)
    shown = stack.compose("exec", "--no-TTY", "backup", "cat", "/var/lib/pgbackrest/drill.json")
    return dict(json.loads(shown))


def sh(stack: Stack, script: str) -> str:
    return stack.compose("exec", "--no-TTY", "backup", "sh", "-euc", script).strip()


def ledger(stack: Stack, query: str) -> str:
    psql = ["psql", "-qtAX", "--host=/tmp", "--username=postgres", "--dbname=postgres", "--command", query]
    return stack.compose("exec", "--no-TTY", "postgres", *psql).strip()


@pytest.fixture
def backed_up(stack: Stack) -> Iterator[None]:
    """A backup, and rows of the ledger after it; whatever a test breaks, a new full one stands at the end."""
    stack.run("./scripts/backup.sh", "--full")
    present = "select coalesce(max(id), 0) from slipway_ledger"
    wait_until(lambda: ledger(stack, "select to_regclass('slipway_ledger')") != "", 60, "the ledger is there", every=1)
    newest = int(ledger(stack, present))
    wait_until(lambda: int(ledger(stack, present)) > newest, 60, "a row after the backup", every=1)
    yield
    stack.run("./scripts/backup.sh", "--full")
    assert drill(stack)["is_well"], "what was broken is behind the new backup"


@pytest.mark.usefixtures("backed_up")
def test_a_drill_restores_a_random_time_and_finds_exactly_what_was_committed(stack: Stack) -> None:
    record = drill(stack)
    assert record["is_well"], record["text"]
    assert record["facts"]["ledger"] >= 1
    assert record["facts"]["tables"] >= 10
    assert record["facts"]["rows"] >= 1
    assert sh(stack, "ls /var/lib/postgresql/scratch") == "", "nothing of the copy is left"
    assert backup_row(stack, "drill")[0]
    print(f"measured: drill: {record['text']}")


def test_a_drill_right_after_a_backup_finds_a_time_to_restore(stack: Stack) -> None:
    wait_until(lambda: ledger(stack, "select to_regclass('slipway_ledger')") != "", 60, "the ledger is there", every=1)
    stack.run("./scripts/backup.sh", "--full")
    record = drill(stack)
    assert record["is_well"], record["text"]


@pytest.mark.usefixtures("backed_up")
def test_a_drill_sees_a_row_too_many_and_a_row_too_few(stack: Stack) -> None:
    """The ledger that serves is made to differ from the archive's, by hand, as a wrong restore would."""
    # Of the rows whose commit time is known; what is older than the first of them is not compared.
    known = "from slipway_ledger where pg_xact_commit_timestamp(xmin) is not null"
    one = ledger(stack, f"select id {known} order by id offset 1 limit 1")
    ledger(stack, f"delete from slipway_ledger where id = {one}")
    record = drill(stack)
    assert not record["is_well"]
    assert "1 rows too many, and 0 are missing" in record["text"]
    assert not backup_row(stack, "drill")[0]
    last_success = record["last_success"]
    assert last_success < record["ended"]
    ledger(stack, f"insert into slipway_ledger overriding system value values ({one}, now())")


@pytest.mark.usefixtures("backed_up")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            "f=$(ls -d backup/main/*F | tail -1)/bundle/1; dd if=/dev/zero of=$f bs=1 seek=4000 count=16 conv=notrunc",
            "",
        ),
        ("rm $(ls archive/main/*/*/*.zst | tail -2 | head -1)", "missing"),
    ],
)
def test_a_drill_fails_where_the_repository_is_damaged(stack: Stack, damage: str, reason: str) -> None:
    for number in range(4):
        stack.sql(f"create temporary table a as select {number}")
        stack.sql("select pg_switch_wal()")
    sh(stack, f"cd {REPOSITORY}; {damage} 2>/dev/null")
    record = drill(stack)
    assert not record["is_well"], record["text"]
    assert reason in record["text"]
    assert not backup_row(stack, "drill")[0]
