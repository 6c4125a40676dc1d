"""Tests the slots: a switch is one rename, and nginx runs without a slot."""

import statistics
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.conftest import Figure
from tests.stack.harness import IMAGE, Stack, wait_until
from tests.stack.load import Load
from tests.stack.settings import give_green_the_settings_of_blue

# Runs alone: the module measures gaps of less than a second and the time of a start.
pytestmark = [pytest.mark.stack, pytest.mark.alone]
SWITCHES = 10
TRIES = 3  # a measurement that another program disturbed is repeated
BOOT_FACTOR = 14  # measured: 6 to 7, and 22 to 26 without byte code


@pytest.fixture
def green(stack: Stack) -> Iterator[None]:
    """Run the same release in green; afterwards make blue live and remove green."""
    stack.run("docker", "tag", f"{IMAGE}:blue", f"{IMAGE}:green")
    give_green_the_settings_of_blue(stack)
    stack.compose("up", "--detach", "--no-deps", "--wait", "api-green", "worker-green")
    try:
        yield
    finally:
        stack.switch("blue")
        stack.compose("rm", "--stop", "--force", "api-green", "worker-green")


@pytest.mark.counts_losses
@pytest.mark.usefixtures("green")
def test_ten_switches_under_load_fail_no_request_and_lose_no_row(
    stack: Stack, figure: Figure
) -> None:
    load = Load(stack, rate=100)
    steady = 0
    with load.running() as report:
        wait_until(lambda: report.sent > 300, 30, "the load is under way")
        steady = len(report.latencies)
        for number in range(SWITCHES):
            stack.switch("green" if number % 2 == 0 else "blue")
            time.sleep(1.5)  # the promised interval between switches; requests run meanwhile
    lost, doubled = load.lost_and_doubled()
    figure(
        f"switches {SWITCHES}, sent {report.sent}, failed {len(report.failures)}, lost "
        f"{lost}, doubled {doubled}, "
        f"p99 {p99_ms(report.latencies[:steady]):.0f} ms before and "
        f"{p99_ms(report.latencies[steady:]):.0f} ms during, "
        f"longest gap {report.longest_gap * 1000:.0f} ms"
    )
    assert len(report.latencies) - steady > 1000, "too few requests during the switches"
    # Measured: 0.04 to 0.3 s without an answer, depending on how busy the machine is. Requests
    # that wait for a slot would exceed this limit.
    assert report.longest_gap - report.stall < max(
        1.0, 3 * p99_ms(report.latencies[:steady]) / 1000
    )
    assert report.failures == []
    assert (lost, doubled) == (0, 0)
    assert len(report.acknowledged) > 300
    assert report.slots == {"blue", "green"}


@pytest.mark.counts_losses
@pytest.mark.usefixtures("green")
def test_a_stopped_slot_answers_what_it_was_given(stack: Stack, figure: Figure) -> None:
    """Stop the old slot right after the switch, while nginx has connections to it."""
    load = Load(stack, rate=100)
    with load.running() as report:
        wait_until(lambda: report.sent > 100, 30, "the load is under way")
        stack.switch("green")
        stack.compose("stop", "api-blue", "worker-blue")
        stack.compose("up", "--detach", "--no-deps", "--wait", "api-blue", "worker-blue")
    lost, doubled = load.lost_and_doubled()
    figure(
        f"stop after switch: sent {report.sent}, failed {report.failures}, lost {lost}, "
        f"doubled {doubled}"
    )
    assert report.failures == []
    assert (lost, doubled) == (0, 0)


def test_nginx_without_a_slot_answers_503_and_recovers_within_a_second(stack: Stack) -> None:
    stack.compose("stop", "api-blue")
    try:
        stack.compose("restart", "nginx")
        with stack.client() as client:
            wait_until(lambda: status(client) == 503, 60, "nginx answers without a slot")
            answer = client.get("/v1/items")
        assert answer.headers["retry-after"] == "1"
        assert set(answer.json()) == {"error", "message", "details", "request_id"}
        assert answer.json()["error"] == "service_unavailable"
        assert "strict-transport-security" in answer.headers
    finally:
        stack.compose("start", "api-blue")
    # nginx may need up to a second after the slot's own check succeeds.
    probe = ["exec", "--no-TTY", "api-blue", "python", "-I", "-S", "/app/api/health/probe.py"]
    wait_until(
        lambda: stack.run("docker", "compose", *probe, check=False).returncode == 0,
        60,
        "the slot is ready",
    )
    with stack.client() as client:
        assert wait_until(lambda: status(client) == 200, 5, "nginx found the slot", every=0.02) < 1


def status(client: httpx2.Client) -> int:
    """Return the status of /readyz, or 0 without an answer."""
    try:
        return client.get("/readyz").status_code
    except httpx2.HTTPError:
        return 0


def test_a_slot_is_ready_within_moments_of_its_start(stack: Stack, figure: Figure) -> None:
    """Boot time, from the container's start to the first 200 at the front door."""

    def boot() -> None:
        stack.run("docker", "start", stack.container("api-blue"))
        with stack.client(timeout=1) as client:
            wait_until(lambda: status(client) == 200, 60, "the front door", every=0.01)

    for _ in range(TRIES):
        bare = min(seconds_of(lambda: idle_container(stack)) for _ in range(3))
        stack.compose("stop", "api-blue")
        seconds = seconds_of(boot)
        if seconds < BOOT_FACTOR * bare:
            break
    figure(
        f"container start to ready through the front door: {seconds:.2f} s, a bare Python "
        f"container {bare:.2f} s"
    )
    assert seconds < BOOT_FACTOR * bare


def idle_container(stack: Stack) -> None:
    """Run an empty program in the same image: the time that the engine and Python need at least."""
    stack.run("docker", "run", "--rm", "--network", "none", f"{IMAGE}:blue", "python", "-c", "pass")


def seconds_of(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def p99_ms(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] * 1000
