"""Backups run on schedule, WAL is archived in time, and failures are shown and bounded."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.backup_incidents import METRICS_PORT, REPOSITORY, backup_row
from tests.stack.harness import Stack, wait_until
from tests.stack.restores import backups

pytestmark = pytest.mark.drill

ARCHIVED_SECONDS = 60  # the promise; archive_timeout is 30 s (postgres/postgresql.conf)
QUEUE_BYTES = 64 * 1024**2
SEGMENT_BYTES = 16 * 1024**2
DROP_FILE = "compose.queue.yaml"


def labels(stack: Stack) -> list[str]:
    return [backup["label"] for backup in backups(stack)]


def test_a_new_stack_has_a_backup_by_itself_and_more_on_demand(stack: Stack) -> None:
    wait_until(
        lambda: "F" in "".join(labels(stack)), 60, "the first backup exists without a command"
    )
    before = labels(stack)
    done = stack.run("./scripts/backup.sh")
    assert done.stdout.splitlines()[-1].startswith("live: release")
    assert labels(stack)[:-1] == before
    assert labels(stack)[-1].endswith("I")
    stack.run("./scripts/backup.sh", "--full")
    assert labels(stack)[-1].endswith("F")
    assert backup_row(stack, "last backup")[0]
    assert backup_row(stack, "archive")[0]


def test_every_row_reaches_the_archive_within_a_minute(stack: Stack) -> None:
    """Postgres ends a segment without a command, so that a lost volume loses few rows."""
    written = stack.sql("select pg_walfile_name(pg_logical_emit_message(true, 'test', 'a row'))")
    question = f"select last_archived_wal >= '{written}' from pg_stat_archiver"
    waited = wait_until(
        lambda: stack.sql(question) == "t", ARCHIVED_SECONDS, "its segment is archived", every=1
    )
    print(f"measured: a row was in the archive after {waited:.0f} s")


def test_the_backups_tell_nothing_without_their_key(stack: Stack) -> None:
    stack.sql(
        "create table canary as select 'the-canary-of-the-backup'::text as word from "
        "generate_series(1, 9)"
    )
    stack.run("./scripts/backup.sh", "--full")
    stack.sql("drop table canary")
    search = (
        f"find {REPOSITORY} -type f -exec cat {{}} + | grep -c the-canary; head -c 8 "
        f"{REPOSITORY}/archive/main/*/*/*"
    )
    found = stack.compose("exec", "--no-TTY", "backup", "sh", "-c", search)
    assert found.splitlines()[0] == "0"
    assert "Salted__" in found, "OpenSSL's mark of an encrypted file"
    key = (stack.root / "secrets/backup_key").read_text(encoding="utf-8").strip()
    shown = stack.run(
        "docker", "inspect", stack.container("backup"), stack.container("postgres")
    ).stdout
    assert key not in shown + stack.compose("logs", "backup", "postgres")


def test_the_metrics_tell_of_each_task_and_of_the_archive(stack: Stack) -> None:
    found = stack.metrics_of("backup", METRICS_PORT)
    assert found['slipway_task_well{task="full"}'] == 1
    assert time.time() - found['slipway_task_last_success_timestamp_seconds{task="full"}'] < 3600
    assert 0 <= found["slipway_archive_lag_seconds"] < 120
    assert found["slipway_wal_bytes"] >= SEGMENT_BYTES


@pytest.mark.nightly  # another test checks archiving in every change
def test_a_server_that_sleeps_through_its_archive_timeout_is_woken(stack: Stack) -> None:
    """The start of Postgres can cause this state at random; the test causes it by a setting."""
    newest = "select coalesce(last_archived_wal, '') from pg_stat_archiver"
    stack.sql("alter system set archive_timeout = 0")
    stack.sql("select pg_reload_conf()")
    wait_until(lambda: stack.sql("show archive_timeout") == "0", 10, "the timeout is off")
    stack.sql("alter system reset archive_timeout")
    ended, begun = stack.sql("select pg_walfile_name(pg_switch_wal())"), time.monotonic()
    wait_until(lambda: stack.sql(newest) > ended, 120, "the next segment is archived")
    print(f"measured: a server asleep: archived after {time.monotonic() - begun:.0f} s")
    assert stack.sql("show archive_timeout") == "30s"


def test_an_empty_volume_is_not_served_as_a_new_database_while_there_are_backups(
    stack: Stack,
) -> None:
    command = [
        "run",
        "--rm",
        "--no-deps",
        "--no-TTY",
        "--volume",
        "/var/lib/postgresql/data",
        "postgres",
    ]
    done = stack.run("docker", "compose", *command, check=False)
    assert done.returncode == 1
    assert "the volume holds no database, but there are backups of one" in done.stderr
    assert "HINT: only for a new database without these backups" in done.stderr
    assert "docs/runbook.md" in done.stderr


@pytest.fixture
def small_queue(stack: Stack) -> Iterator[None]:
    """Run Postgres with an archive queue of 64 MB instead of 1 GiB; restore it afterwards."""
    file: Path = stack.root / DROP_FILE
    file.write_text(
        f"services: {{postgres: {{environment: {{PGBACKREST_ARCHIVE_PUSH_QUEUE_MAX: "
        f"'{QUEUE_BYTES}'}}}}}}\n"
    )
    up = ["up", "--detach", "--no-deps", "--wait", "postgres"]
    stack.compose("--file", "compose.yaml", "--file", DROP_FILE, *up)
    yield
    stack.compose("exec", "--no-TTY", "backup", "chmod", "-R", "u+rwX", REPOSITORY)
    stack.compose(*up)
    file.unlink()


def wal_bytes(stack: Stack) -> int:
    return int(stack.sql("select sum(size) from pg_ls_waldir()"))


@pytest.mark.nightly  # the runbook's test injects fault 29 in every change
@pytest.mark.usefixtures("small_queue")
def test_a_broken_archive_is_shown_and_bounded_and_a_backup_ends_the_gap(stack: Stack) -> None:
    """Fault 29: alert within 2 minutes, WAL growth bounded, the correct lag shown."""
    wait_until(stack.is_serving, 30, "Postgres is back")
    stack.compose("exec", "--no-TTY", "backup", "chmod", "-R", "u-w", f"{REPOSITORY}/archive")
    stack.sql("select pg_switch_wal()")
    broken = time.monotonic()
    wait_until(lambda: not backup_row(stack, "archive")[0], 120, "status.sh shows it", every=2)
    alerted = time.monotonic() - broken
    fails = backup_row(stack, "archive")[1]
    assert "archiving has failed for" in fails
    peak = 0
    for _ in range(16):  # 256 MB
        stack.sql("select pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()")
        peak = max(peak, wal_bytes(stack))
    wait_until(
        lambda: wal_bytes(stack) <= QUEUE_BYTES + 256 * 1024**2,
        60,
        "WAL beyond the limit is dropped",
    )
    dropped = stack.compose("logs", "--no-color", "--since", "3m", "postgres")
    assert re.search(r"dropped WAL file .* because archive queue exceeded", dropped)
    newest = labels(stack)[-1]
    stack.compose("exec", "--no-TTY", "backup", "chmod", "-R", "u+w", f"{REPOSITORY}/archive")
    wait_until(
        lambda: labels(stack)[-1] != newest, 120, "a backup is taken without a command", every=1
    )
    wait_until(lambda: backup_row(stack, "archive")[0], 60, "the line archive is ok", every=1)
    print(
        f"measured: archiving broken: shown after {alerted:.0f} s, pg_wal {peak / 1e6:.0f} "
        "MB at most, gap ended"
    )
