"""The API follows its stated policy in every fault of Redis, and recovers soon after it."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.stack.documents import blocks, incidents
from tests.stack.fault_incidents import change_redis_file, corrupted_redis
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load

pytestmark = pytest.mark.drill

BACK_SECONDS = 5  # the promise: the longest recovery after the end of a fault
RUNBOOK_SECONDS = 120  # the promise if a person has to follow the runbook
PASSWORD = "a long enough password"


@contextlib.contextmanager
def killed(stack: Stack) -> Iterator[None]:
    os.kill(stack.host_pid("redis"), signal.SIGKILL)
    yield


@contextlib.contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    stack.compose("stop", "redis")
    try:
        yield
    finally:
        stack.compose("start", "redis")


@contextlib.contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    stack.compose("pause", "redis")
    try:
        yield
    finally:
        stack.compose("unpause", "redis")


@contextlib.contextmanager
def flushed(stack: Stack) -> Iterator[None]:
    assert stack.redis("flushall", "sync") == "OK"
    stack.redis("script", "flush")
    yield


@contextlib.contextmanager
def out_of_memory(stack: Stack) -> Iterator[None]:
    """Redis can neither evict a key nor accept a write, as if no key had an expiry."""
    stack.redis("config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1")
    assert "OOM" in stack.redis("set", "a", "b")
    try:
        yield
    finally:
        stack.redis("config", "set", "maxmemory-policy", "volatile-ttl", "maxmemory", "16mb")


@contextlib.contextmanager
def without_its_volume(stack: Stack) -> Iterator[None]:
    stack.compose("rm", "--stop", "--force", "redis")
    stack.run("docker", "volume", "rm", f"{stack.project}_redis")
    try:
        yield
    finally:
        stack.compose("up", "--detach", "--no-deps", "redis")


@contextlib.contextmanager
def its_file_cut_off(stack: Stack) -> Iterator[None]:
    """Cut off the last command of the file; the earlier commands remain."""
    assert stack.redis("set", "drill:kept", "1", "ex", "600") == "OK"
    change_redis_file(stack, "truncate --size=-3 $file")
    try:
        yield
    finally:
        stack.compose("start", "redis")
    is_kept = ["exec", "--no-TTY", "redis", "/etc/slipway/cli.sh", "get", "drill:kept"]
    wait_until(
        lambda: stack.compose(*is_kept, check=False).strip() == "1",
        BACK_SECONDS,
        "the complete commands are loaded",
    )
    assert "aof-load-truncated is enabled" in stack.compose(
        "logs", "--no-color", "--tail", "50", "redis"
    )


@contextlib.contextmanager
def its_file_corrupted(stack: Stack) -> Iterator[None]:
    """Damage the file in the middle; the commands of the runbook entry repair it."""
    corrupted_redis(stack)
    yield
    begun = time.monotonic()
    for block in blocks(incidents()["redis-file-corrupted"]["Mitigation"]):
        stack.run("bash", "-euo", "pipefail", "-c", block)
    assert time.monotonic() - begun < RUNBOOK_SECONDS


FAULTS = {
    "killed": (killed, "ready"),
    "stopped": (stopped, "degraded"),
    "frozen": (frozen, "degraded"),
    "flushed": (flushed, "ready"),
    "out of memory": (out_of_memory, "ready"),
    "its volume gone": (without_its_volume, "degraded"),
    "its file cut off": (its_file_cut_off, "degraded"),
    "its file corrupted": (its_file_corrupted, "degraded"),
}
# test_documents.py follows the runbook entry for a corrupted file on every change.
NIGHTLY = {"its file cut off", "its file corrupted"}


@pytest.mark.counts_losses
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in NIGHTLY else ()) for name in FAULTS],
)
def test_the_api_serves_through_a_fault_of_redis_and_loses_nothing(
    stack: Stack, name: str, figure: Figure
) -> None:
    fault, readiness = FAULTS[name]
    token = stack.new_token()
    load = Load(stack, rate=50)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 5, 30, "the load is under way")
        with fault(stack):
            answers = ask_everything(stack, token)
            wait_until(lambda: readyz(stack) == readiness, 30, f"the API is {readiness}")
        ended = time.monotonic()
        wait_until(stack.is_serving, BACK_SECONDS, "ready again, Redis included", every=0.02)
        wait_until(
            lambda: has_count(stack, token), BACK_SECONDS, "limits are counted again", every=0.02
        )
        back = time.monotonic() - ended
        good = len(report.latencies)
        wait_until(lambda: len(report.latencies) > good + 20, 30, "requests succeed")
    lost, doubled = load.lost_and_doubled()
    export = answers.pop("export")
    over = f"select status from procrastinate_jobs where args->>'export_id' = '{export}'"
    wait_until(lambda: stack.sql(over) == "succeeded", 60, "the job is done")
    figure(
        f"Redis {name}: back after {back:.1f} s, sent {report.sent}, failed "
        f"{len(report.failures)}, lost {lost}, "
        f"p99 {report.p99_ms():.0f} ms; "
        + ", ".join(f"{what} {got}" for what, got in answers.items())
    )
    assert report.failures == []
    assert (lost, doubled) == (0, 0)
    assert back < BACK_SECONDS


def readyz(stack: Stack) -> str:
    with stack.client() as client:
        return str(client.get("/readyz").json()["status"])


def has_count(stack: Stack, token: str) -> bool:
    """Whether requests are counted by the general rule, which allows all requests without Redis."""
    with stack.client(headers={"Authorization": f"Bearer {token}"}) as client:
        return "ratelimit" in client.get("/v1/items").headers


def ask_everything(stack: Stack, token: str) -> dict[str, str]:
    """Send a request to each kind of route; each status must be the same as without a fault."""
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    found: dict[str, str] = {}
    with stack.client(headers={"Authorization": f"Bearer {token}"}) as client:
        item = "/v1/items/" + client.post("/v1/items", json={"name": "a"}).json()["id"]
        for method, path, body, status in (
            ("GET", "/livez", None, 200),
            ("GET", "/readyz", None, 200),
            ("POST", "/v1/users", user, 201),
            ("POST", "/v1/users/login", user, 200),
            ("GET", "/v1/users/me", None, 200),
            ("POST", "/v1/items", {"name": "a"}, 201),
            ("GET", "/v1/items", None, 200),
            ("GET", item, None, 200),
            ("PUT", item, {"name": "b"}, 200),
            ("GET", "/v1/item-summary", None, 200),
            ("DELETE", item, None, 204),
            ("POST", "/v1/exports", None, 202),
        ):
            answer = client.request(method, path, json=body)
            assert answer.status_code == status, f"{method} {path}: {answer.text}"
            kind = path.replace(item, "/v1/items/ID")
            found[f"{method} {kind}"] = (
                f"{status} in {answer.elapsed.total_seconds() * 1000:.0f} ms"
            )
    return {**found, "export": str(answer.json()["id"])}
