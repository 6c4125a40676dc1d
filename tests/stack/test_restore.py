"""Any time can be restored; damage is detected before a change; a failed restore is undone."""

import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.stack.harness import Stack, wait_until
from tests.stack.restores import (
    backups,
    beside,
    committed,
    directories,
    flips,
    fresh_backup,
    in_repository,
    now,
    removed,
    restore,
    wanted,
    write_rows,
)

pytestmark = pytest.mark.drill
SEED = 20261121
NIGHTLY = pytest.mark.nightly
CHECK = ["restore", "python3", "-m", "backup.restore", "check"]


@pytest.fixture
def _nothing_beside(stack: Stack) -> Iterator[None]:
    restore(stack, "--remove-beside")
    yield
    restore(stack, "--remove-beside")


@pytest.mark.counts_losses
@pytest.mark.usefixtures("_nothing_beside")
@pytest.mark.parametrize("count", [1, pytest.param(20, marks=NIGHTLY)])
def test_a_time_restored_beside_has_every_row_committed_by_then_and_no_other(
    stack: Stack, count: int
) -> None:
    table = f"ledger_{count}"
    stack.run("./scripts/backup.sh")
    ended = backups(stack)[-1]["timestamp"]["stop"]
    wait_until(lambda: time.time() > ended + 1, 10, "the second in which the backup ended is over")
    write_rows(stack, table, 100 * count)
    times = committed(stack, table)
    stack.sql(f"delete from {table}")
    chosen = random.Random(SEED)  # noqa: S311  not for secrets
    first, last = min(times.values()), max(times.values())
    too_many = missing = 0
    for _ in range(count):
        moment = first + (last - first) * chosen.random()
        restore(stack, "--to", moment.isoformat(), "--beside")
        found = {int(row) for row in beside(stack, f"select id from {table}").split()}
        expected = {row for row, at in times.items() if at <= moment}
        too_many += len(found - expected)
        missing += len(expected - found)
        restore(stack, "--remove-beside")
    stack.sql(f"drop table {table}")
    print(f"measured: {count} times, {too_many} rows too many, {missing} rows missing")
    assert (too_many, missing) == (0, 0)


def untouched(stack: Stack) -> tuple[str, list[str]]:
    """Return facts that must not change: the server's start time, and its directories."""
    return stack.sql("select pg_postmaster_start_time()"), directories(stack)


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=NIGHTLY)])
def test_a_changed_bit_is_found_before_anything_is_touched(stack: Stack, count: int) -> None:
    label = fresh_backup(stack)
    words = [
        "--latest",
        "--replace",
        "--yes",
        "--set",
        label,
    ]  # the schedule may take a newer backup meanwhile
    before, missed = untouched(stack), []
    for flip in flips(stack, label, count, SEED):
        with flip.made(stack):
            if (
                flip.kind == "metadata"
            ):  # metadata has two copies: the damage is reported, and the other copy is used
                told = stack.compose("run", "--rm", "--no-deps", "--no-TTY", *CHECK, "--set", label)
                is_found = "is damaged; the other one is used" in told
            else:
                done = restore(stack, *words, check=False)
                is_found = done.returncode == 1 and "damaged" in done.stderr
        if not is_found:
            missed.append(flip)
        assert untouched(stack) == before, flip
    print(
        f"measured: {count} changed bits, {count - len(missed)} found before anything was touched"
    )
    assert missed == []


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=NIGHTLY)])
def test_a_missing_segment_is_found_before_anything_is_touched(stack: Stack, count: int) -> None:
    label = fresh_backup(stack)
    # Name the backup: the schedule detects the gap too and takes a new backup, from which a
    # restore would succeed.
    words = ["--latest", "--replace", "--yes", "--set", label]
    before = untouched(stack)
    chosen = random.Random(SEED)  # noqa: S311  not for secrets
    # The newest segment is not removed: without it the archive would only end earlier, and the
    # restore would succeed.
    for path in chosen.choices(wanted(stack, label)["wal"][:-1], k=count):
        with removed(stack, path):
            done = restore(stack, *words, check=False)
        assert done.returncode == 1, path
        assert f"segment {path[-69:-45]} is missing" in done.stderr
        assert untouched(stack) == before, path


def test_a_segment_that_cannot_be_read_is_no_end_of_the_archive(stack: Stack) -> None:
    """Postgres would treat the segment as the end of the archive and start without the rest."""
    label = fresh_backup(stack)
    before, path = untouched(stack), wanted(stack, label)["wal"][-2]
    in_repository(stack, 'chmod 000 "$1"', path)
    try:
        done = restore(stack, "--latest", "--replace", "--yes", "--set", label, check=False)
    finally:
        in_repository(stack, 'chmod 640 "$1"', path)
    assert done.returncode == 1
    assert f"segment {path[-69:-45]} is damaged" in done.stderr
    assert untouched(stack) == before


def test_an_older_backup_is_offered_where_the_newest_is_damaged(stack: Stack) -> None:
    newest = fresh_backup(stack)
    flip = next(one for one in flips(stack, newest, 9, SEED) if one.kind == "backup")
    with flip.made(stack):
        done = restore(stack, "--latest", "--set", newest, "--beside", check=False)
        assert done.returncode == 1
        [label] = re.findall(
            r"an older backup is good, and leads to the same time: add --set (\S+)", done.stderr
        )
        restore(stack, "--latest", "--set", label, "--beside")
        assert beside(stack, "select count(*) from users") == stack.sql(
            "select count(*) from users"
        )
    restore(stack, "--remove-beside")


def test_a_time_that_cannot_be_restored_is_refused_with_the_nearest_ones(stack: Stack) -> None:
    fresh_backup(stack)
    spans = [
        line.split()
        for line in restore(stack, "--list").stdout.splitlines()
        if "can be restored:" in line
    ]
    future = datetime.now(UTC) + timedelta(hours=1)
    for moment, told in (
        (future.isoformat(), "lies in the future"),
        ("2001-01-01", f"the earliest time that can be restored is {spans[0][3]}"),
    ):
        done = restore(stack, "--to", moment, "--beside", check=False)
        assert done.returncode == 1
        assert told in done.stderr


def test_a_restored_database_that_does_not_work_gives_way_to_the_one_before(stack: Stack) -> None:
    stack.sql("create table kept (id int)")
    with stack.edited(
        "compose.yaml",
        'SLIPWAY_MIGRATE_CONFIRM: "${MIGRATE_CONFIRM:-}"',
        'SLIPWAY_MIGRATE_CONFIRM: "no"',
    ):
        stack.sql("insert into kept values (1)")
        moment = now()
        stack.sql("insert into kept values (2)")
        done = restore(stack, "--to", moment, "--replace", "--yes", check=False)
    assert done.returncode == 4, done.stderr
    assert "the former database serves again" in done.stderr
    assert stack.sql("select count(*) from kept") == "2"
    assert stack.ledger()[-1]["result"] == "failed"
    restore(stack, "--to", moment, "--replace", "--yes")
    assert stack.sql("select count(*) from kept") == "1"
    restore(
        stack, "--to", now(), "--replace", "--yes"
    )  # on the new timeline; the failed restore has left another timeline
    assert stack.sql("select count(*) from kept") == "1"
    assert len([name for name in directories(stack) if name.startswith("17.before-")]) == 2
    restore(stack, "--discard-old", "--yes")
    assert "17.before" not in " ".join(directories(stack))
    stack.sql("drop table kept")
    assert stack.ledger()[-1]["result"] == "done"


def kill_at(stack: Stack, text: str, *words: str) -> None:
    """Run restore.sh and kill it when it prints a line with this text."""
    argv = ["./scripts/restore.sh", *words]
    process = subprocess.Popen(
        argv, cwd=stack.root, env=stack.environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if text in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL


# At the first line Postgres still serves; at the second, every program that writes is stopped.
@pytest.mark.parametrize("text", [pytest.param("recover to", marks=NIGHTLY), "==> exchange"])
def test_a_restore_that_was_killed_leaves_nothing_to_clean_by_hand(stack: Stack, text: str) -> None:
    kill_at(stack, text, "--latest", "--replace", "--yes")
    restore(stack, "--latest", "--replace", "--yes")
    wait_until(stack.is_serving, 60, "the stack serves after the second restore")
    assert not [name for name in directories(stack) if name.startswith(("17.restor", "17.failed"))]
    restore(stack, "--discard-old", "--yes")
