"""An API short of memory or CPU loses only requests in flight and refuses excess requests."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.configuring.timeouts import REQUEST_SECONDS
from tests.conftest import Figure
from tests.stack import flood
from tests.stack.faults import heal, kinds, probing_load, status
from tests.stack.harness import Stack, wait_until
from tests.stack.processes import api_processes

# Runs alone: the test measures seconds, and a flood of 400 clients uses both cores.
pytestmark = [pytest.mark.drill, pytest.mark.alone]

BACK_SECONDS = 2
FLOOD_SECONDS = 8
# Allocates memory until the kernel kills it. The scores set the order: first the victim (1000),
# then this program (700), then the services (500 in compose.yaml), which may be larger.
HOG = """
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("700")
held = []
while True:
    held.append(b"x" * 2**20)
"""


@pytest.mark.counts_losses
def test_a_process_that_memory_ran_out_for_is_back_soon_and_postgres_unharmed(
    stack: Stack, figure: Figure
) -> None:
    postgres, master, before = (
        stack.host_pid("postgres"),
        stack.host_pid("api-blue"),
        api_processes(stack),
    )
    victim = min(before)
    # Without this score the kernel would kill the largest process, which is the program that fills
    # the container, instead of the victim.
    Path(f"/proc/{victim}/oom_score_adj").write_text("1000", encoding="ascii")
    load = probing_load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        argv = ["docker", "exec", stack.container("api-blue"), "python", "-c", HOG]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hog:
            wait_until(
                lambda: not Path(f"/proc/{victim}").exists(), 30, "memory ran out", every=0.005
            )
            killed = time.monotonic()
            wait_until(
                lambda: is_whole(stack, before, victim),
                BACK_SECONDS,
                "another process serves",
                every=0.01,
            )
            back = time.monotonic() - killed
            assert hog.wait(30) == 137
        healed = heal(stack, load, BACK_SECONDS)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"out of memory: another process serves after {back:.1f} s, sent {report.sent}, "
        f"failed {kinds(report)}, "
        f"last failure {healed:.1f} s after, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    # Only requests that were in flight, or were sent soon after the kill on connections of the
    # killed process, may fail.
    at = killed - load._started
    assert [(when - at, what) for when, what in report.failures if not -2 < when - at < 0.5] == []
    assert victim not in api_processes(stack)
    assert stack.host_pid("postgres") == postgres
    assert stack.host_pid("api-blue") == master


def is_whole(stack: Stack, before: set[int], victim: int) -> bool:
    """Whether the number of processes is as before, with a new one in place of the victim."""
    serving = len(api_processes(stack) - {victim}) == len(before)
    return serving and stack.metrics()["slipway_processes"] == len(before)


def test_a_host_out_of_memory_would_take_the_application_first(stack: Stack) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score").read_text(encoding="ascii"))

    ours = [*api_processes(stack), stack.host_pid("worker-blue")]
    data = [stack.host_pid("postgres"), stack.host_pid("redis")]
    assert min(map(score, ours)) > max(map(score, data))


def test_an_api_short_of_cpu_refuses_what_it_cannot_do_in_time(
    stack: Stack, figure: Figure
) -> None:
    container, before = stack.container("api-blue"), api_processes(stack)
    cpus = stack.inspect("api-blue")["HostConfig"]["NanoCpus"] / 1e9
    token = stack.token()
    pid = stack.host_pid("nginx")
    arguments = [
        "8443",
        stack.host,
        token,
        str(FLOOD_SECONDS),
        str(stack.root / "secrets/tls/fullchain.pem"),
    ]
    argv = [
        "nsenter",
        f"--net=/proc/{pid}/ns/net",
        sys.executable,
        str(Path(flood.__file__)),
        *arguments,
    ]
    stack.run("docker", "update", "--cpus", "0.1", container)
    try:
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as many:
            begun = time.monotonic()
            probes = []
            while time.monotonic() - begun < FLOOD_SECONDS:
                probes.append(status(stack, "/livez"))
            seen: dict[str, tuple[int, float]] = json.loads(many.communicate(timeout=60)[0])
    finally:
        stack.run("docker", "update", "--cpus", str(cpus), container)
    healed = wait_until(stack.is_serving, 30, "ready again")
    livez = max(seconds for _, seconds in probes)
    figure(
        f"a tenth of a core, {flood.CLIENTS * flood.CONNECTIONS} requests at once for "
        f"{FLOOD_SECONDS} s: {seen} "
        f"(count, slowest in s), /livez {livez:.1f} s at most, ready {healed:.1f} s after"
    )
    assert {"200", "503 overloaded"} <= set(seen)
    assert set(seen) <= {
        "200",
        "503 overloaded",
        "503 database_unavailable",
        "503 service_unavailable",
    }
    assert max(slowest for _, slowest in seen.values()) < REQUEST_SECONDS
    assert {answer for answer, _ in probes} == {200}
    assert api_processes(stack) == before, "Gunicorn replaced a process that it took for hung"
