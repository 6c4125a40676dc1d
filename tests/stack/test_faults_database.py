"""Postgres killed, frozen, full or late: errors are quick, nothing hangs, all recovers."""

import os
import re
import signal
import statistics
import time

import pytest

from api.configuring.timeouts import POOL_SECONDS, REQUEST_SECONDS
from tests.conftest import Figure
from tests.stack.faults import (
    ROOM_SECONDS,
    all_connections_taken,
    assert_nothing_is_leaked,
    fail_one_fsync,
    heal,
    kinds,
    probing_load,
    status,
    unexpected,
)
from tests.stack.harness import Stack, wait_until

# Runs alone: errors and recovery have limits of a few seconds.
pytestmark = [pytest.mark.drill, pytest.mark.alone]

FSYNC_SECONDS = 15
LATE_SECONDS = 15  # from the start of the API and the worker to the start of Postgres


@pytest.mark.counts_losses
def test_a_killed_postgres_costs_quick_errors_and_nothing_acknowledged(
    stack: Stack, figure: Figure
) -> None:
    load = probing_load(stack, rate=30)
    api, livez = stack.host_pid("api-blue"), [status(stack, "/livez")]
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        pid = stack.host_pid("postgres")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()

        def is_back() -> bool:
            livez.append(status(stack, "/livez"))
            return stack.is_serving() and stack.host_pid("postgres") not in {0, pid}

        wait_until(is_back, 10, "serving again", every=0.02)
        back = time.monotonic() - killed
        healed = heal(stack, load, 5)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"Postgres killed: serving after {back:.1f} s, last failure {healed:.1f} s later, "
        f"sent {report.sent}, "
        f"failed {kinds(report)}, slowest {report.slowest:.2f} s, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert report.failures
    assert unexpected(report) == []
    assert report.slowest - report.stall < POOL_SECONDS + ROOM_SECONDS
    assert {answer for answer, _ in livez} == {200}
    assert stack.host_pid("api-blue") == api
    assert_nothing_is_leaked(stack)


@pytest.mark.counts_losses
def test_without_a_free_connection_errors_are_quick_and_an_operator_gets_in(
    stack: Stack, figure: Figure
) -> None:
    load = probing_load(stack)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 5, 30, "the load is under way")
        with all_connections_taken(stack):
            begun, known = time.monotonic(), len(report.failures)
            wait_until(lambda: status(stack, "/readyz")[0] == 503, 5, "not ready")
            wait_until(lambda: len(report.failures) > known + 30, 60, "requests fail")
            good = len(report.latencies)
            assert stack.sql("select current_user") == "postgres"
            shown = stack.run("./scripts/status.sh", check=False).stdout
            assert re.search(r"^ok +queue ", shown, re.MULTILINE), shown
            assert status(stack, "/livez")[0] == 200
            lasted = time.monotonic() - begun
            assert len(report.latencies) == good, "a request succeeded"
        healed = heal(stack, load, 5)
    figure(
        f"no free connection for {lasted:.1f} s: failed {kinds(report)}, slowest "
        f"{report.slowest:.2f} s, "
        f"healed {healed:.1f} s after the release, lost and doubled {load.lost_and_doubled()}"
    )
    assert unexpected(report) == []
    assert report.slowest - report.stall < POOL_SECONDS + ROOM_SECONDS
    assert load.lost_and_doubled() == (0, 0)
    assert healed < 5
    assert_nothing_is_leaked(stack)


@pytest.mark.counts_losses
def test_a_disk_that_fails_to_keep_the_log_costs_a_recovery_and_nothing_acknowledged(
    stack: Stack, figure: Figure
) -> None:
    """Postgres must not retry a failed fdatasync of WAL: the kernel may have dropped the pages."""
    load = probing_load(stack, rate=30)
    before = stack.host_pid("postgres")
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        begun = time.monotonic()
        traced = fail_one_fsync(stack, FSYNC_SECONDS)
        wait_until(stack.is_serving, FSYNC_SECONDS, "serving again", every=0.02)
        back = time.monotonic() - begun
        healed = heal(stack, load, 5)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"fsync error on WAL: serving {back:.1f} s after the injection, last failure "
        f"{healed:.1f} s later, sent "
        f"{report.sent}, failed {kinds(report)}, slowest {report.slowest:.2f} s, lost "
        f"{lost}, doubled {doubled}"
    )
    assert "EIO (Input/output error) (INJECTED)" in traced
    logs = stack.compose("logs", "--no-color", "--since", "1m", "postgres")
    assert re.search(r'PANIC: +could not fdatasync file "0000', logs)
    assert "database system was not properly shut down; automatic recovery in progress" in logs
    assert stack.host_pid("postgres") == before, "the container did not restart"
    assert (lost, doubled) == (0, 0)
    assert unexpected(report) == []
    assert back < FSYNC_SECONDS


@pytest.mark.counts_losses
def test_a_frozen_postgres_holds_no_request_for_ever(stack: Stack, figure: Figure) -> None:
    load = probing_load(stack)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        before = statistics.median(report.latencies)
        stack.compose("pause", "postgres")
        try:
            unready = wait_until(lambda: status(stack, "/readyz")[0] == 503, 5, "not ready")
            caught = 'error": "request_timeout'
            wait_until(
                lambda: any(caught in what for _, what in report.failures),
                30,
                "a request in flight has failed",
            )
            livez = [status(stack, "/livez") for _ in range(3)]
        finally:
            stack.compose("unpause", "postgres")
        thawed = time.monotonic()
        healed = heal(stack, load, 10)

        def at_full_speed() -> bool:
            return statistics.median(report.latencies[-20:]) < 3 * before

        wait_until(at_full_speed, 10 - (time.monotonic() - thawed), "full speed")
        after = statistics.median(report.latencies[-20:])
    lost, doubled = load.lost_and_doubled()
    figure(
        f"Postgres frozen: /readyz 503 after {unready:.1f} s, failed {kinds(report)}, "
        f"slowest {report.slowest:.1f} s, "
        f"healed {healed:.1f} s after the thaw, median {before * 1000:.0f} ms before and "
        f"{after * 1000:.0f} ms after"
    )
    assert [what for _, what in report.failures if not re.match(r"(GET|POST) 50[34] {", what)] == []
    assert report.slowest - report.stall < REQUEST_SECONDS + ROOM_SECONDS
    assert (lost, doubled) == (0, 0)
    assert {answer for answer, _ in livez} == {200}
    assert min(seconds for _, seconds in livez) < 1
    assert_nothing_is_leaked(stack)
    wait_until(lambda: health(stack) == "healthy", 60, "Postgres is healthy for status.sh")


@pytest.mark.nightly  # fault 39
def test_a_postgres_that_comes_late_finds_everybody_waiting(stack: Stack, figure: Figure) -> None:
    ours = ("api-blue", "worker-blue")
    stack.compose("stop", *ours, "postgres")
    try:
        stack.compose("start", *ours)
        begun = time.monotonic()
        wait_until(
            lambda: status(stack, "/livez")[0] == 200, 60, "the API answers without Postgres"
        )
        pids = [stack.host_pid(service) for service in ours]
        answers: set[int] = set()
        while time.monotonic() - begun < LATE_SECONDS:
            answers |= {status(stack, path)[0] for path in ("/readyz", "/livez")}
        assert answers == {503, 200}
    finally:
        stack.compose("start", "postgres")
    wait_until(lambda: is_answering(stack), 60, "Postgres answers", every=0.02)
    seconds = wait_until(stack.is_serving, 5, "ready", every=0.02)
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        export = client.post("/v1/exports").json()["id"]
    over = f"select status from procrastinate_jobs where args->>'export_id' = '{export}'"
    worked = wait_until(lambda: stack.sql(over) == "succeeded", 60, "the worker works")
    figure(
        f"Postgres {LATE_SECONDS} s late: ready {seconds:.1f} s after it, the first job "
        f"done {worked:.1f} s later"
    )
    assert [stack.host_pid(service) for service in ours] == pids, "no container restarted"


def health(stack: Stack) -> str:
    return str(stack.inspect("postgres")["State"]["Health"]["Status"])


def is_answering(stack: Stack) -> bool:
    psql = [
        "psql",
        "-qtAX",
        "--username=postgres",
        "--dbname=slipway",
        "--host=/tmp",
        "--command",
        "select 1",
    ]
    return stack.compose("exec", "--no-TTY", "postgres", *psql, check=False).strip() == "1"
