"""Fills Postgres' volume: an alert comes first, no row is lost, the runbook repairs it."""

import re
import time
from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.stack.backup_incidents import METRICS_PORT
from tests.stack.documents import blocks, incidents
from tests.stack.faults import heal, kinds, probing_load, unexpected
from tests.stack.harness import Stack, wait_until
from tests.stack.test_documents import execute, is_misused
from tests.stack.volumes import small_volume

pytestmark = pytest.mark.drill

ENTRY = "postgres-volume-full"
WRITABLE_SECONDS = 120
BALLAST_BYTES = 256 * 1024**2
# A forgotten replication slot, which keeps all WAL from here on.
SLOT = "select pg_create_physical_replication_slot('forgotten', true)"
SEGMENT = "select pg_logical_emit_message(true, 'fill', 'x'); select pg_switch_wal();"
SEGMENTS_AT_ONCE = 4  # of 16 MB each: too few to skip the alert at 15 %


def free_percent(stack: Stack) -> float:
    """Return the free percentage of Postgres' volume, even if Postgres does not run."""
    argv = (
        "run",
        "--rm",
        "--no-deps",
        "--no-TTY",
        "--entrypoint",
        "df",
        "postgres",
        "--output=avail,size",
    )
    avail, size = stack.compose(*argv, "/var/lib/postgresql/data").splitlines()[-1].split()
    return 100 * int(avail) / int(size)


def write_segments(stack: Stack) -> bool:
    """Make Postgres write some WAL segments; return whether Postgres wrote them all."""
    script = (
        'printf "%s\\n" "$1" | psql -v ON_ERROR_STOP=1 -qtAX --username=postgres '
        "--dbname=slipway --host=/tmp"
    )
    argv = [
        "docker",
        "compose",
        "exec",
        "--no-TTY",
        "postgres",
        "sh",
        "-ec",
        script,
        "sh",
        SEGMENT * SEGMENTS_AT_ONCE,
    ]
    return stack.run(*argv, check=False).returncode == 0


def disk_row(stack: Stack) -> str:
    shown = stack.run("./scripts/status.sh", check=False).stdout
    found = re.search(r"^(ok|!!) +disk postgres .*$", shown, re.MULTILINE)
    assert found, shown
    return found[0]


def is_writable(stack: Stack) -> bool:
    psql = ["psql", "-qtAX", "--username=postgres", "--dbname=slipway", "--host=/tmp", "--command"]
    statement = "begin; create table written as select 1; rollback"
    argv = ["docker", "compose", "exec", "--no-TTY", "postgres", *psql, statement]
    return stack.run(*argv, check=False).returncode == 0


def fill(stack: Stack, ballast: Path) -> None:
    """Fill the volume with WAL, beyond the alert, until Postgres cannot run any more."""
    stack.sql(SLOT)
    assert disk_row(stack).startswith("ok")
    wait_until(
        lambda: write_segments(stack) and free_percent(stack) < 15, 60, "less than 15 % is free"
    )
    assert stack.is_serving()
    assert disk_row(stack).startswith("!!")
    assert stack.metrics_of("backup", METRICS_PORT)["slipway_postgres_free_ratio"] < 0.15
    wait_until(lambda: not write_segments(stack), 60, "the volume is full")
    wait_until(
        lambda: stack.inspect("postgres")["RestartCount"] > 1, 60, "Postgres starts again and again"
    )
    assert ballast.stat().st_size == BALLAST_BYTES, "the ballast exists"


@pytest.mark.counts_losses
def test_a_full_volume_loses_nothing_and_takes_writes_again_by_the_runbook(
    stack: Stack, figure: Figure
) -> None:
    parts = incidents()[ENTRY]
    load = probing_load(stack, rate=20)
    with small_volume(stack) as mountpoint:
        ballast = mountpoint / "ballast"
        with load.running() as report:
            wait_until(lambda: len(report.acknowledged) > 10, 30, "the load is under way")
            fill(stack, ballast)
            known = len(report.failures)
            wait_until(lambda: len(report.failures) > known + 20, 20, "requests fail")
            for line in "\n".join(blocks(parts["Diagnosis"])).splitlines():
                assert not is_misused(stack, line), line
            begun = time.monotonic()
            make_room, mend = blocks(parts["Mitigation"])
            execute(stack, make_room)
            wait_until(lambda: is_writable(stack), WRITABLE_SECONDS, "writable again")
            writable = time.monotonic() - begun
            assert not ballast.exists(), "a new ballast has filled the volume again"
            execute(stack, mend)
            healed = heal(stack, load, 20)
        for block in blocks(parts["Verification"]):
            execute(stack, block)
        assert ballast.stat().st_size == BALLAST_BYTES
        lost, doubled = load.lost_and_doubled()
    figure(
        f"Postgres' volume full: writable {writable:.1f} s after the first command of the "
        f"runbook, sent {report.sent}, "
        f"failed {kinds(report)}, slowest {report.slowest:.1f} s, last failure "
        f"{healed:.1f} s after the last command, "
        f"lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert unexpected(report) == []
    assert writable < WRITABLE_SECONDS
