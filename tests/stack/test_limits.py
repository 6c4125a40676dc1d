"""The rate limits at the front door, counted over all processes, with low limits."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack
from tests.stack.settings import slot_settings

pytestmark = pytest.mark.stack

LOGINS = 20  # per minute: one login is allowed every 3 s
STRICT = {
    "LOGIN_LIMIT_PER_MINUTE": str(LOGINS),
    "USER_LIMIT_PER_SECOND": "5",
    "EXPORT_LIMIT_PER_HOUR": "2",
    "REGISTRATION_LIMIT_PER_HOUR": "2",
}
PROCESSES = 2
PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def user(stack: Stack) -> dict[str, str]:
    """A user, registered before the limits are lowered."""
    made = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
    with stack.client() as client:
        assert client.post("/v1/users", json=made).status_code == 201
    return made


@pytest.fixture(scope="module")
def strict(stack: Stack, user: dict[str, str]) -> Iterator[Stack]:
    """Run the live API with low limits; restore the high limits and reset the counts after it."""
    up = ("docker", "compose", "up", "--detach", "--no-deps", "--wait", "api-blue")
    with slot_settings(stack, "blue", **STRICT):
        stack.run(*up)
        yield stack
    stack.run(*up)
    stack.redis("flushall")


@pytest.fixture
def fresh(strict: Stack) -> Stack:
    strict.redis("flushall")
    return strict


@contextmanager
def signed_in(stack: Stack, user: dict[str, str]) -> Iterator[httpx2.Client]:
    with stack.client() as client:
        token = client.post("/v1/users/login", json=user).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def until_refused(ask: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Send requests until one is refused: the quota refills during a test."""
    return next(answer for answer in (ask() for _ in range(10)) if answer.status_code == 429)


def check_refusal(answer: httpx2.Response, most_seconds: int) -> int:
    """Check the format of a 429 and return its Retry-After."""
    assert answer.status_code == 429, answer.text
    body = answer.json()
    assert set(body) == {"error", "message", "details", "request_id"}
    seconds = int(answer.headers["retry-after"])
    assert (body["error"], body["details"]) == (
        "too_many_requests",
        {"retry_after_seconds": seconds},
    )
    assert 1 <= seconds <= most_seconds
    assert ";r=0;t=" in answer.headers["ratelimit"]
    return seconds


def test_logins_are_limited_over_all_processes_and_pass_again_after_retry_after(
    fresh: Stack, user: dict[str, str]
) -> None:
    wrong = {**user, "password": "not the password"}
    with fresh.client(timeout=30) as client, ThreadPoolExecutor(8) as threads:
        started = time.monotonic()
        given = list(
            threads.map(lambda _: client.post("/v1/users/login", json=wrong), range(LOGINS * 2))
        )
        came_back = (time.monotonic() - started) // 3
        passed = [answer.status_code for answer in given if answer.status_code != 429]
        assert LOGINS <= len(passed) <= LOGINS + came_back
        assert set(passed) == {401}
        assert (
            given[0].headers["ratelimit-policy"] == '"login";q=20;w=60, "login-address";q=60;w=60'
        )
        refused = until_refused(lambda: client.post("/v1/users/login", json=user))
        told = time.monotonic()
        seconds = check_refusal(refused, 3)
        # Unknown and existing accounts get the same answers; guesses for one account do not lock
        # out another.
        unknown = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
        statuses = [
            client.post("/v1/users/login", json=unknown).status_code for _ in range(LOGINS * 2)
        ]
        assert statuses[:LOGINS] == [401] * LOGINS
        assert 429 in statuses[LOGINS:]
        time.sleep(
            max(0.0, told + seconds - time.monotonic())
        )  # wait exactly the Retry-After of the refusal
        assert client.post("/v1/users/login", json=user).status_code == 200
        check_refusal(until_refused(lambda: client.post("/v1/users/login", json=user)), 3)


def test_one_address_is_limited_whatever_accounts_it_tries(fresh: Stack) -> None:
    with fresh.client(timeout=30) as client, ThreadPoolExecutor(8) as threads:

        def attempt(_: int) -> int:
            someone = {"email": f"{uuid.uuid4().hex}@example.com", "password": "x"}
            return client.post("/v1/users/login", json=someone).status_code

        started = time.monotonic()
        statuses = list(threads.map(attempt, range(5 * LOGINS)))
        came_back = time.monotonic() - started  # one login per second is allowed again
    assert 3 * LOGINS <= statuses.count(401) <= 3 * LOGINS + came_back
    assert set(statuses) == {401, 429}


def test_refreshes_from_one_address_are_limited_and_a_refused_one_uses_no_token_up(
    fresh: Stack, user: dict[str, str]
) -> None:
    with fresh.client(timeout=30) as client, ThreadPoolExecutor(8) as threads:

        def refresh(token: str) -> httpx2.Response:
            return client.post("/v1/users/refresh", json={"refresh_token": token})

        mine = client.post("/v1/users/login", json=user).json()["refresh_token"]
        answers = list(threads.map(lambda _: refresh(uuid.uuid4().hex), range(8 * LOGINS)))
        assert {answer.status_code for answer in answers} == {401, 429}
        assert answers[0].headers["ratelimit-policy"] == '"refresh";q=120;w=60'
        told = time.monotonic()
        refused = until_refused(lambda: refresh(mine))
        seconds = check_refusal(refused, 1)
        time.sleep(max(0.0, told + seconds - time.monotonic()))
        assert refresh(mine).status_code == 200, "the refused exchange used up the token"


def test_logins_to_the_console_are_limited_whoever_is_named(fresh: Stack) -> None:
    password = (fresh.root / "secrets/ops_password").read_text(encoding="utf-8").strip()
    with fresh.client(timeout=30) as client:

        def log_in(user: str, password: str) -> httpx2.Response:
            return client.post("/ops/session", json={"user": user, "password": password})

        guesses = [
            log_in("operator" if i % 2 else "root", "wrong").status_code for i in range(LOGINS)
        ]
        assert guesses == [401] * LOGINS
        refused = until_refused(lambda: log_in("operator", password))
        told = time.monotonic()
        seconds = check_refusal(refused, 3)
        assert "set-cookie" not in refused.headers
        time.sleep(max(0.0, told + seconds - time.monotonic()))
        assert log_in("operator", password).status_code == 201


def test_a_users_writes_are_limited_and_reads_by_key_are_not(
    fresh: Stack, user: dict[str, str]
) -> None:
    with signed_in(fresh, user) as client:
        item = client.post("/v1/items", json={"name": "one"}).json()["id"]
        started = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            written = list(
                threads.map(lambda _: client.post("/v1/items", json={"name": "more"}), range(40))
            )
            seconds = time.monotonic() - started
            read = list(threads.map(lambda _: client.get(f"/v1/items/{item}"), range(40)))
    refused = [answer for answer in written if answer.status_code == 429]
    assert {answer.status_code for answer in written} == {201, 429}
    assert len(written) - len(refused) <= 10 + 5 * seconds
    for answer in refused:
        check_refusal(answer, 1)
    assert {answer.status_code for answer in read} == {200}
    assert all("ratelimit" not in answer.headers for answer in read)


def test_an_export_too_many_is_no_job(fresh: Stack, user: dict[str, str]) -> None:
    with signed_in(fresh, user) as client:
        assert [client.post("/v1/exports").status_code for _ in range(2)] == [202, 202]
        jobs = fresh.sql(
            "select count(*) from procrastinate_jobs where task_name = 'exports.write'"
        )
        refused = client.post("/v1/exports")
        assert check_refusal(refused, 1800) > 1700
        assert refused.headers["ratelimit-policy"] == '"user";q=10;w=2, "export";q=2;w=3600'
    assert (
        fresh.sql("select count(*) from procrastinate_jobs where task_name = 'exports.write'")
        == jobs
    )


def test_registrations_from_one_address_are_limited_and_bad_ones_do_not_count(fresh: Stack) -> None:
    def register(password: str = PASSWORD) -> httpx2.Response:
        return client.post(
            "/v1/users", json={"email": f"{uuid.uuid4().hex}@example.com", "password": password}
        )

    with fresh.client() as client:
        assert [register("short").status_code for _ in range(5)] == [422] * 5
        assert [register().status_code for _ in range(2)] == [201, 201]
        assert check_refusal(register(), 1800) > 1700


def test_without_redis_each_rule_keeps_its_policy(
    fresh: Stack, user: dict[str, str], figure: Figure
) -> None:
    with signed_in(fresh, user) as client:
        fresh.compose("stop", "redis")
        try:
            started = time.monotonic()
            logins = [
                client.post("/v1/users/login", json=user) for _ in range(PROCESSES * LOGINS + 30)
            ]
            came_back = (time.monotonic() - started) // 3
            writes = [
                client.post("/v1/items", json={"name": "open"}).status_code for _ in range(40)
            ]
            exports = [client.post("/v1/exports").status_code for _ in range(2 * PROCESSES + 2)]
        finally:
            fresh.compose("start", "redis")
    passed = [answer.status_code for answer in logins if answer.status_code != 429]
    slowest = max(answer.elapsed.total_seconds() for answer in logins)
    figure(
        f"Redis away: {len(passed)} of {len(logins)} logins passed, quota {LOGINS}; "
        f"slowest {slowest * 1000:.0f} ms"
    )
    assert LOGINS <= len(passed) <= PROCESSES * (LOGINS + came_back)
    assert set(passed) == {200}
    check_refusal(next(answer for answer in logins if answer.status_code == 429), 3)
    assert writes == [201] * 40, "the rule for a user refused a request"
    assert 2 <= exports.count(202) <= 2 * PROCESSES
    counted = fresh.metrics()
    assert counted['slipway_rate_limit_decisions_total{outcome="open",rule="user"}'] >= 40
    assert counted['slipway_rate_limit_decisions_total{outcome="limited_locally",rule="login"}'] > 0
    assert counted['slipway_redis_errors_total{use="limits"}'] > 0
