"""Metrics of the running slot are hidden from clients, summed over processes, never lost."""

import os
import signal

import pytest

from tests.stack.harness import Stack, wait_until
from tests.stack.processes import api_processes

pytestmark = pytest.mark.stack
ITEMS = 'slipway_http_request_duration_seconds_count{method="GET",route="/v1/items",status="4xx"}'


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/v1/../metrics", "/metrics?x=1", "/metrics/"]
)
def test_no_client_gets_metrics(stack: Stack, path: str) -> None:
    with stack.client(follow_redirects=False) as client:
        answer = client.get(f"{stack.url}{path}")
    assert answer.status_code in {307, 404}
    assert "slipway_" not in answer.text
    if answer.status_code == 404:
        assert answer.json()["error"] == "not_found"


def test_the_slot_s_own_server_shows_the_sum_of_all_processes(stack: Stack) -> None:
    before = stack.metrics().get(ITEMS, 0.0)
    for _ in range(10):
        with stack.client() as client:  # new connections, so that several processes answer
            assert client.get("/v1/items").status_code == 401
    found = stack.metrics()
    assert found[ITEMS] == before + 10
    assert found["slipway_processes"] == len(api_processes(stack))
    assert found["slipway_database_pool_size"] == 5 * len(api_processes(stack))
    release, slot = stack.live()
    assert found[f'slipway_release_info{{release="{release}",service="api",slot="{slot}"}}'] == 1


def test_a_killed_process_takes_no_count_with_it_and_leaves_no_file(stack: Stack) -> None:
    with stack.client() as client:
        client.get("/v1/items")
    before = stack.metrics()
    listing = ["exec", "--no-TTY", "api-blue", "ls", "/tmp/metrics"]
    files = stack.compose(*listing).split()
    for _ in range(3):
        processes = api_processes(stack)
        os.kill(min(processes), signal.SIGKILL)

        def is_whole(old: set[int] = processes) -> bool:
            return len(api_processes(stack)) == len(old) and api_processes(stack) != old

        wait_until(is_whole, 60, "another process serves")
    wait_until(
        lambda: stack.metrics()["slipway_processes"] == before["slipway_processes"],
        60,
        "the gauge counts every process",
    )
    after = stack.metrics()
    assert after[ITEMS] >= before[ITEMS]
    assert after["slipway_database_pool_size"] == before["slipway_database_pool_size"]
    assert set(stack.compose(*listing).split()) == set(files)
