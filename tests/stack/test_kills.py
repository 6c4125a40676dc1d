"""SIGKILL of each process in turn, under load: how soon it comes back, and that nothing acknowledged is lost."""

import os
import signal
import time

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load

pytestmark = pytest.mark.drill

# service, what is killed, seconds within which the front door must be ready again, Redis included.
# The promises of the product are tighter; these bounds leave room for two shared cores.
KILLS = [
    ("nginx", 10),
    ("api-blue", 10),
    ("worker-blue", 30),
    ("redis", 15),
    ("postgres", 30),
]


@pytest.mark.parametrize(("service", "seconds"), KILLS)
def test_a_killed_service_comes_back_and_nothing_acknowledged_is_lost(
    stack: Stack, service: str, seconds: int, figure: Figure
) -> None:
    load = Load(stack, rate=50)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        pid = stack.host_pid(service)
        before = stack.inspect(service)["RestartCount"]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: stack.host_pid(service) not in {0, pid}, seconds, f"{service} runs again", every=0.02)
        wait_until(stack.is_serving, seconds, "the front door is ready again", every=0.02)
        back = time.monotonic() - killed
        good = len(report.latencies)
        wait_until(lambda: len(report.latencies) > good + 50, 30, "requests succeed again")
    lost, doubled = load.lost_and_doubled()
    kinds = sorted({what.split("{")[0][:60] for _, what in report.failures})
    figure(
        f"kill {service}: back after {back:.1f} s, sent {report.sent}, failed {len(report.failures)} {kinds}, "
        f"longest gap {report.longest_gap:.1f} s, lost {lost}, doubled {doubled}"
    )
    assert stack.inspect(service)["RestartCount"] > before
    assert (lost, doubled) == (0, 0)
    if service in {"worker-blue", "redis"}:
        assert report.failures == [], "the API does not need it"


def test_a_worker_killed_in_a_job_loses_no_job_and_does_none_twice(stack: Stack, figure: Figure) -> None:
    exports = []
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        for number in range(30):
            exports.append(client.post("/v1/exports").json()["id"])
            if number % 10 == 5:
                os.kill(stack.host_pid("worker-blue"), signal.SIGKILL)
                wait_until(lambda: stack.host_pid("worker-blue") != 0, 30, "the worker runs again")
    listed = ",".join(f"'{export}'" for export in exports)
    finished = f"select count(*) from exports where id in ({listed}) and status = 'finished'"
    seconds = wait_until(lambda: stack.sql(finished) == str(len(exports)), 90, "every export is finished")
    chunks = f"select 1 from export_chunks where export_id in ({listed}) group by export_id, seq having count(*) > 1"
    doubled = stack.sql(f"select count(*) from ({chunks}) d")
    figure(f"worker killed 3 times in 30 exports: all finished {seconds:.1f} s after the last request")
    assert doubled == "0"
