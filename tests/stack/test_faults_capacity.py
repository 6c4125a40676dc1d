"""An API that is short of memory or CPU: it loses what is in flight at most, and refuses what it cannot do in time."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.stack.faults import heal, kinds, probing_load
from tests.stack.harness import Stack, wait_until
from tests.stack.processes import api_processes

pytestmark = pytest.mark.drill

BACK_SECONDS = 2
# Grows until it is killed; what it writes is really there.
HOG = "held = []\nwhile True: held.append(b'x' * 2**20)"


def test_a_process_that_memory_ran_out_for_is_back_soon_and_postgres_unharmed(stack: Stack, figure: Figure) -> None:
    postgres, master, before = stack.host_pid("postgres"), stack.host_pid("api-blue"), api_processes(stack)
    victim = min(before)
    # The kernel takes who has most, which would be the program that fills the container; it is told to prefer this one.
    Path(f"/proc/{victim}/oom_score_adj").write_text("1000", encoding="ascii")
    children = Path(f"/proc/{master}/task/{master}/children")
    load = probing_load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        argv = ["docker", "exec", stack.container("api-blue"), "python", "-c", HOG]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hog:
            wait_until(lambda: not Path(f"/proc/{victim}").exists(), 30, "memory ran out", every=0.005)
            killed = time.monotonic()
            wait_until(lambda: len(children.read_text().split()) == len(before), BACK_SECONDS, "a new one", every=0.005)
            back = time.monotonic() - killed
            assert hog.wait(30) == 137
        healed = heal(stack, load, BACK_SECONDS)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"out of memory: a new process after {back * 1000:.0f} ms, sent {report.sent}, failed {kinds(report)}, "
        f"last failure {healed:.1f} s after, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert len(report.failures) <= 5, "more than what was in flight"
    assert victim not in api_processes(stack)
    assert stack.host_pid("postgres") == postgres
    assert stack.host_pid("api-blue") == master


def test_a_host_out_of_memory_would_take_the_application_first(stack: Stack) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score").read_text(encoding="ascii"))

    ours = [*api_processes(stack), stack.host_pid("worker-blue")]
    data = [stack.host_pid("postgres"), stack.host_pid("redis")]
    assert min(map(score, ours)) > max(map(score, data))
