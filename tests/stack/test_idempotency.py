"""A request that is repeated with its key is executed once, whatever happens in between."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from api.configuring.timeouts import LOCK_SECONDS, STATEMENT_SECONDS
from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.stack

PRUNE = (
    "insert into procrastinate_jobs (queue_name, task_name, args) values ('{0}', '{0}', "
    "'{{\"timestamp\": 0}}')"
)


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    limits = httpx2.Limits(max_connections=20)
    with stack.client(
        headers={"Authorization": f"Bearer {stack.token()}"}, timeout=30, limits=limits
    ) as client:
        yield client


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def rows(stack: Stack, name: str) -> int:
    return int(stack.sql(f"select count(*) from items where name = '{name}'"))


@pytest.mark.alone  # each request waits at most 2 s for the lock
@pytest.mark.counts_losses
def test_the_same_key_twenty_times_at_once_makes_one_item(
    stack: Stack, client: httpx2.Client, key: dict[str, str], figure: Figure
) -> None:
    name = f"once {key['Idempotency-Key']}"
    gate = threading.Barrier(20)

    def ask(_: int) -> httpx2.Response:
        gate.wait()
        return client.post("/v1/items", json={"name": name}, headers=key)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(ask, range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["etag"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert sorted(map(str, replayed)) == ["None", *["true"] * 19]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20
    assert rows(stack, name) == 1
    slowest_ms = max(answer.elapsed.total_seconds() for answer in answers) * 1000
    figure(
        f"one key, 20 requests at once: 1 row, 19 replayed, the slowest after {slowest_ms:.0f} ms"
    )


def test_a_key_stands_for_one_body_one_user_and_one_route(
    stack: Stack, client: httpx2.Client, key: dict[str, str]
) -> None:
    first = client.post("/v1/items", json={"name": "first"}, headers=key)
    other_body = client.post("/v1/items", json={"name": "second"}, headers=key)
    assert (other_body.status_code, other_body.json()["error"]) == (422, "idempotency_key_reused")
    export = client.post("/v1/exports", headers=key)
    assert (export.status_code, "idempotency-replayed" in export.headers) == (202, False)
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    client.post("/v1/users", json=user)
    token = client.post("/v1/users/login", json=user).json()["access_token"]
    theirs = client.post(
        "/v1/items", json={"name": "first"}, headers={**key, "Authorization": f"Bearer {token}"}
    )
    assert theirs.status_code == 201
    assert theirs.json()["id"] != first.json()["id"]
    for given in (b"", b"two words", b"x" * 256, b"\xe4"):
        refused = client.post(
            "/v1/items", json={"name": "a"}, headers=[(b"Idempotency-Key", given)]
        )
        assert (refused.status_code, refused.json()["error"]) == (422, "validation_failed")


@pytest.mark.counts_losses
def test_an_export_that_is_asked_for_twice_has_one_row_and_one_job(
    stack: Stack, client: httpx2.Client, key: dict[str, str]
) -> None:
    first, second = (client.post("/v1/exports", headers=key) for _ in range(2))
    assert (first.status_code, second.status_code, second.content) == (202, 202, first.content)
    assert second.headers["idempotency-replayed"] == "true"
    job = (
        f"select count(*) from procrastinate_jobs where args->>'export_id' = '{first.json()['id']}'"
    )
    assert stack.sql(job) == "1"


def test_a_change_that_failed_leaves_its_key_free(
    stack: Stack, client: httpx2.Client, key: dict[str, str]
) -> None:
    name = f"twice {key['Idempotency-Key']}"
    stack.sql(f"alter table items add constraint refuse check (name <> '{name}') not valid")
    try:
        assert client.post("/v1/items", json={"name": name}, headers=key).status_code == 500
    finally:
        stack.sql("alter table items drop constraint refuse")
    again = client.post("/v1/items", json={"name": name}, headers=key)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)


def test_a_key_that_is_at_work_for_long_is_409_and_says_when_to_come_again(
    stack: Stack, client: httpx2.Client, key: dict[str, str]
) -> None:
    made = client.post("/v1/items", json={"name": "held"}, headers=key)
    with stack.holding(
        f"select from idempotency_keys where key = '{key['Idempotency-Key']}' for update"
    ):
        answer = client.post("/v1/items", json={"name": "held"}, headers=key)
    assert (answer.status_code, answer.json()["error"]) == (409, "idempotency_key_in_use")
    assert answer.headers["retry-after"] == "1"
    assert LOCK_SECONDS * 0.9 < answer.elapsed.total_seconds() < STATEMENT_SECONDS, (
        "the request waits for the lock timeout"
    )
    assert client.post("/v1/items", json={"name": "held"}, headers=key).content == made.content


def test_a_key_is_over_after_a_day_and_then_deleted(
    stack: Stack, client: httpx2.Client, key: dict[str, str]
) -> None:
    fresh = {"Idempotency-Key": uuid.uuid4().hex}
    first = client.post("/v1/items", json={"name": "old"}, headers=key)
    client.post("/v1/items", json={"name": "fresh"}, headers=fresh)
    this = f"where key = '{key['Idempotency-Key']}'"
    age = f"update idempotency_keys set created_at = now() - interval '24 hours 1 second' {this}"
    stack.sql(age)
    second = client.post("/v1/items", json={"name": "new"}, headers=key)
    assert (second.status_code, second.json()["name"]) == (201, "new")
    assert second.json()["id"] != first.json()["id"]
    assert client.post("/v1/items", json={"name": "new"}, headers=key).content == second.content
    stack.sql(age)
    stack.sql(PRUNE.format("idempotency_keys.prune"))
    wait_until(
        lambda: stack.sql(f"select count(*) from idempotency_keys {this}") == "0",
        60,
        "the old key is deleted",
    )
    left = f"select count(*) from idempotency_keys where key = '{fresh['Idempotency-Key']}'"
    assert stack.sql(left) == "1"


@pytest.mark.counts_losses
@pytest.mark.drill
def test_clients_that_repeat_after_a_killed_api_get_the_same_item(
    stack: Stack, figure: Figure
) -> None:
    """Each client repeats a request with the same key until it gets an answer."""
    run = uuid.uuid4().hex[:8]
    token = stack.token()
    repeated: list[str] = []
    is_over = threading.Event()

    def work(worker: int) -> dict[str, str]:
        ledger: dict[str, str] = {}
        with stack.client(headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
            while not is_over.is_set():
                name = f"{run}-{worker}-{len(ledger)}"
                ledger[name] = ask_until_answered(client, name, repeated)
        return ledger

    with ThreadPoolExecutor(10) as threads:
        working = [threads.submit(work, number) for number in range(10)]
        try:
            for _ in range(3):
                time.sleep(0.5)  # gives the clients time for requests between two kills
                kill_the_api(stack)
                wait_until(stack.is_serving, 20, "it serves")
        finally:
            is_over.set()
        answered = {name: item for future in working for name, item in future.result().items()}
    listing = stack.sql(f"select name, id from items where name like '{run}-%'").splitlines()
    assert sorted(listing) == sorted(f"{name}|{item}" for name, item in answered.items())
    assert repeated
    figure(
        f"API killed 3 times under 10 clients with keys: {len(answered)} items asked for, "
        f"{len(repeated)} requests "
        "repeated, 0 lost, 0 doubled"
    )


def kill_the_api(stack: Stack) -> None:
    """Kill the API's master process, and wait until it runs again."""
    pid = stack.host_pid("api-blue")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: stack.host_pid("api-blue") not in {0, pid}, 20, "the API runs again")


def ask_until_answered(client: httpx2.Client, name: str, repeated: list[str]) -> str:
    """Return the id of the new item."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = client.post(
                "/v1/items", json={"name": name}, headers={"Idempotency-Key": name}
            )
        except httpx2.HTTPError:
            repeated.append(name)
            continue
        if answer.status_code == 201:
            return str(answer.json()["id"])
        assert answer.status_code in {409, 502, 503}, answer.text
        repeated.append(name)
        time.sleep(0.05)
    raise AssertionError(f"never answered: {name}")
