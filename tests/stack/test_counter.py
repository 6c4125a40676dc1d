"""The counter in the whole stack: dead, hanging, restarted, and under hostile requests."""

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from stack.commands import counter

from tests.conftest import Figure
from tests.stack.crowd import crowd
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load

pytestmark = pytest.mark.drill
LIST_ITEMS = "    return await service.list_items(database, user_id, cursor, limit)"
HEADERS = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
# Requests that nginx refuses by itself; tests/scripts/parts/test_refusals.py sends more.
REFUSALS = (
    "GET / HTTP/3.0\r\n\r\n",
    f"POST /v1/items {HEADERS}Transfer-Encoding: gzip\r\n\r\n",
    f"POST /v1/items {HEADERS}Content-Length: 9000000\r\n\r\n",
    f"TRACE / {HEADERS}\r\n",
    f"GET /metrics {HEADERS}\r\n",
    f"GET /{'a' * 9000} {HEADERS}\r\n",
    f"GET / {HEADERS}X-A: {'a' * 9000}\r\n\r\n",
)


@pytest.fixture(autouse=True)
def _as_before(stack: Stack) -> Iterator[None]:
    yield
    stack.compose("up", "--detach", "--no-deps", "--wait", "counter")
    stack.back_to_blue()


def counts(stack: Stack) -> dict[str, Any]:
    """Return the counts, with the query of the scripts."""
    argv = counter.read_counts().argv
    answer: dict[str, Any] = json.loads(stack.run(*argv).stdout)
    return answer


def answers(stack: Stack, slot: str) -> int:
    return int(counts(stack)["slots"][slot]["answers"])


@contextmanager
def acting(act: Callable[[], None]) -> Iterator[None]:
    """Repeat an action while the block runs."""
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            act()
            time.sleep(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(60)


def send(stack: Stack, text: str) -> None:
    """Send a request to nginx; it may close the connection before it has read everything."""
    address = ("127.0.0.1", int(stack.environment["HTTPS_PORT"]))
    with (
        suppress(OSError),
        socket.create_connection(address, 10) as plain,
        stack.tls.wrap_socket(plain, server_hostname=stack.host) as connection,
    ):
        connection.sendall(text.encode())
        connection.recv(4096)


@pytest.mark.counts_losses
def test_every_request_of_a_load_is_counted(stack: Stack, figure: Figure) -> None:
    before = counts(stack)
    load = Load(stack, rate=60, is_mixed=True)
    with load.running() as report:
        wait_until(lambda: report.sent > 600, 60, "the load is under way")

    def is_complete() -> bool:
        counted = answers(stack, "blue") - int(before["slots"]["blue"]["answers"])
        return counted >= report.sent

    wait_until(is_complete, 20, "every request is counted")
    after = counts(stack)
    assert after["malformed"] == 0
    assert after["lost"] - before["lost"] <= 1  # counter/losses.py
    figure(f"counter: {report.sent} requests, {after['lost'] - before['lost']} not counted")


@pytest.mark.counts_losses
def test_a_dead_a_hanging_and_a_restarting_counter_fail_no_request(
    stack: Stack, figure: Figure
) -> None:
    with Load(stack, rate=60).running() as report:
        stack.compose("kill", "--signal", "SIGSTOP", "counter")
        report.wait_for_answers(200)
        stack.compose("kill", "--signal", "SIGCONT", "counter")
        stack.compose("restart", "counter")
        report.wait_for_answers(60)
        stack.compose("stop", "counter")
        report.wait_for_answers(200)
        status = stack.run("./scripts/status.sh", check=False).stdout
        stack.compose("up", "--detach", "--no-deps", "--wait", "counter")
        wait_until(lambda: answers(stack, "blue") > 20, 30, "nginx has found the counter")
    assert report.failures == []
    assert re.search(r"requests +.*the counter gives no counts", status)
    figure(f"a counter that hangs, restarts and stops: {report.sent} requests, 0 failed")


def test_nginx_starts_without_a_counter_and_is_healthy(stack: Stack) -> None:
    stack.compose("stop", "counter")
    stack.compose("restart", "nginx")
    stack.compose("up", "--detach", "--no-deps", "--wait", "nginx")
    wait_until(stack.is_serving, 30, "the stack serves")


def test_a_deploy_without_a_counter_is_refused_before_any_effect(stack: Stack) -> None:
    before = stack.live()
    stack.compose("stop", "counter")
    stack.vary()
    failed = stack.deploy(check=False)
    assert failed.returncode == 1
    assert "cannot watch: the counter gives no counts" in failed.stderr
    assert stack.live() == before
    assert stack.ledger()[-1]["result"] == "refused"


def test_a_counter_that_restarts_during_the_watch_is_no_success(stack: Stack) -> None:
    before = stack.live()
    stack.vary()
    argv = ["./scripts/deploy.sh"]
    environment = {**stack.environment, "WATCH_SECONDS": "15"}
    running = subprocess.Popen(
        argv, cwd=stack.root, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout
    for line in running.stdout:
        if line.startswith("==> watch"):
            stack.compose("restart", "counter")
    assert running.wait(120) == 4
    assert stack.live() == before


def test_refusals_of_nginx_take_no_release_back(stack: Stack) -> None:
    _, slot = stack.live()
    stack.vary()

    def refuse_all() -> None:
        for text in REFUSALS:
            send(stack, text)

    with crowd(stack, "/v1/items?limit=5"), acting(refuse_all):
        completed = stack.deploy(WATCH_SECONDS="8")
    assert stack.live()[1] != slot
    assert re.search(r"\d+ requests, 0\.0% errors", completed.stdout)
    assert counts(stack)["slots"]["nginx"]["errors"] > 20


def test_one_client_with_errors_takes_no_release_back(stack: Stack) -> None:
    _, slot = stack.live()
    broken = f'    if limit == 7:\n        raise RuntimeError("broken")\n{LIST_ITEMS}'
    with (
        stack.edited("api/items/routes.py", LIST_ITEMS, broken),
        crowd(stack, "/v1/items?limit=5"),
        crowd(stack, "/v1/items?limit=7", "9"),
    ):
        completed = stack.deploy(WATCH_SECONDS="8")
    assert stack.live()[1] != slot
    assert "errors of fewer than 3 addresses" in completed.stdout


def test_the_metrics_are_inside_alone(stack: Stack) -> None:
    with stack.client() as client:
        client.get("/livez")
        assert client.get("/metrics").status_code == 404
    ask = ["exec", "--no-TTY", "nginx", "curl", "--fail", "--silent"]
    text = stack.compose(*ask, "http://127.0.0.1:8081/metrics")
    assert re.search(r'^slipway_requests_total\{slot="blue",status="2xx"\} \d+$', text, re.M)


def test_it_has_no_network_and_a_long_queue(stack: Stack) -> None:
    assert stack.inspect("counter")["HostConfig"]["NetworkMode"] == "none"
    read = ["exec", "--no-TTY", "counter", "cat", "/proc/sys/net/unix/max_dgram_qlen"]
    assert stack.compose(*read).strip() == "512"


def test_nginx_may_send_to_the_sockets_and_not_replace_them(stack: Stack) -> None:
    show = ["stat", "-c", "%n %a %u %g", "/run/counter", "/run/counter/requests.sock"]
    assert stack.compose("exec", "--no-TTY", "nginx", *show).splitlines() == [
        "/run/counter 750 10002 10001",
        "/run/counter/requests.sock 660 10002 10001",
    ]
    remove = ["exec", "--no-TTY", "nginx", "rm", "-f", "/run/counter/requests.sock"]
    stack.run("docker", "compose", *remove, check=False)
    assert counts(stack)["received"] > 0
