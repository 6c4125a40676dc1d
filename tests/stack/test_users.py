"""Tests the refresh tokens of a login: exchanged, repeated, stolen, revoked."""

import hashlib
import json
import statistics
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.stack
PRUNED_ROWS = 12_000  # more than two batches
DEFER_PRUNING = """
import asyncio, procrastinate
from api.storing.database import connect_arguments
from api.storing.jobs import queue
from api.configuring.settings import WorkerSettings, load_settings

async def main():
    options = connect_arguments(load_settings(WorkerSettings))
    connector = procrastinate.PsycopgConnector(kwargs=options)
    with queue.replace_connector(connector):
        async with queue.open_async():
            name = "refresh_tokens.prune"
            await queue.configure_task(name, queue=name).defer_async(timestamp=0)

asyncio.run(main())
"""


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.client(timeout=10) as client:
        yield client


@pytest.fixture
def user(client: httpx2.Client) -> dict[str, str]:
    made = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    assert client.post("/v1/users", json=made).status_code == 201
    return made


def log_in(client: httpx2.Client, user: dict[str, str]) -> str:
    answer = client.post("/v1/users/login", json=user)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["refresh_token"])


def exchange(client: httpx2.Client, token: str) -> httpx2.Response:
    return client.post("/v1/users/refresh", json={"refresh_token": token})


def following(client: httpx2.Client, token: str) -> str:
    answer = exchange(client, token)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["refresh_token"])


def row_of(token: str) -> str:
    return f"token_hash = '\\x{hashlib.sha256(token.encode()).hexdigest()}'"


def logged(stack: Stack, service: str, action: str, since: str) -> list[dict[str, Any]]:
    """Return a service's log lines of an action since a time of the engine's clock."""
    lines = stack.run(
        "docker", "logs", "--since", since, stack.container(service)
    ).stdout.splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry["action"] == action]


def logged_until(
    stack: Stack, last: httpx2.Response, action: str, since: str
) -> list[dict[str, Any]]:
    """Return the API's log lines of an action, after the line of this answer has arrived."""
    request_id = last.headers["x-request-id"]

    def is_kept() -> bool:
        served = logged(stack, "api-blue", "request_served", since)
        return any(entry["request_id"] == request_id for entry in served)

    wait_until(is_kept, 60, "the line of the last answer is in the log")
    return logged(stack, "api-blue", action, since)


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_a_refresh_token_leads_to_the_next_pair_and_only_its_hash_is_stored(
    stack: Stack, client: httpx2.Client, user: dict[str, str]
) -> None:
    first = log_in(client, user)
    answer = exchange(client, first).json()
    header = {"Authorization": f"Bearer {answer['access_token']}"}
    assert client.get("/v1/users/me", headers=header).json()["email"] == user["email"]
    assert answer["refresh_token"] != first
    assert 29 * 86_400 < answer["refresh_expires_in"] <= 30 * 86_400
    stored = stack.sql(f"select used_at is not null from refresh_tokens where {row_of(first)}")
    assert stored == "t"
    everything = stack.sql("select string_agg(refresh_tokens::text, ' ') from refresh_tokens")
    assert first not in everything
    assert first.encode().hex() not in everything


@pytest.mark.alone  # each request waits at most 2 s for the lock
def test_twenty_uses_of_one_token_at_once_get_the_one_next_token(
    stack: Stack, client: httpx2.Client, user: dict[str, str]
) -> None:
    first = log_in(client, user)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: exchange(client, first), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    family = f"select family_id from refresh_tokens where {row_of(first)}"
    assert stack.sql(f"select count(*) from refresh_tokens where family_id = ({family})") == "2"


@pytest.mark.parametrize(
    "is_late", [False, True], ids=["successor used", "after the time for repeats"]
)
def test_a_second_use_ends_the_login_and_no_other(
    stack: Stack, client: httpx2.Client, user: dict[str, str], is_late: bool
) -> None:
    other, first, since = log_in(client, user), log_in(client, user), now()
    second = following(client, first)
    if is_late:
        stack.sql(
            "update refresh_tokens set used_at = used_at - interval '31 seconds' where "
            f"{row_of(first)}"
        )
        last = second
    else:
        assert following(client, first) == second, "a repeated exchange returns another token"
        last = following(client, second)
    refused = exchange(client, first)
    assert (refused.status_code, refused.json()["error"]) == (401, "refresh_failed")
    assert exchange(client, last).status_code == 401, (
        "a token of the thief or the owner is still valid"
    )
    kept = exchange(client, other)
    assert kept.status_code == 200
    entries = logged_until(stack, kept, "refresh_reused", since)
    assert [entry["request_id"] for entry in entries] == [refused.headers["x-request-id"]]
    assert first not in json.dumps(entries)


def test_a_token_that_was_being_added_is_revoked_with_its_family(
    stack: Stack, client: httpx2.Client, user: dict[str, str]
) -> None:
    """A request that began before the revocation commits its token after the revocation."""
    first = log_in(client, user)
    assert client.post("/v1/users/logout", json={"refresh_token": first}).status_code == 204
    late = f"late-{uuid.uuid4().hex}"
    stack.sql(
        "insert into refresh_tokens (token_hash, family_id, user_id, expires_at) "
        f"select sha256('{late}'), family_id, user_id, expires_at from refresh_tokens "
        f"where {row_of(first)}"
    )
    assert stack.sql(f"select revoked_at is null from refresh_tokens where {row_of(late)}") == "t"
    assert exchange(client, late).status_code == 401


def test_logout_ends_one_login_and_tells_nothing_of_tokens(
    client: httpx2.Client, user: dict[str, str]
) -> None:
    other, first = log_in(client, user), log_in(client, user)
    second = following(client, first)
    for token in (first, first, "unknown"):
        answer = client.post("/v1/users/logout", json={"refresh_token": token})
        assert (answer.status_code, answer.text) == (204, "")
    assert [exchange(client, token).status_code for token in (second, first, "unknown")] == [
        401,
        401,
        401,
    ]
    following(client, other)


def test_tokens_that_are_over_are_refused_and_pruned_and_live_ones_stay(
    stack: Stack, client: httpx2.Client, user: dict[str, str], figure: Figure
) -> None:
    live, over, since = log_in(client, user), log_in(client, user), now()
    stack.sql(
        f"update refresh_tokens set expires_at = now() - interval '1 second' where {row_of(over)}"
    )
    assert exchange(client, over).status_code == 401
    stack.sql(
        "insert into refresh_tokens (token_hash, family_id, user_id, expires_at) select "
        "sha256(n::text::bytea), "
        "gen_random_uuid(), id, now() - interval '1 day' from users, generate_series(1, "
        f"{PRUNED_ROWS}) n where email = '{user['email']}'"
    )
    stack.compose("exec", "--no-TTY", "worker-blue", "python", "-c", DEFER_PRUNING)
    wait_until(
        lambda: logged(stack, "worker-blue", "refresh_tokens_pruned", since),
        120,
        "the worker has pruned",
    )
    begun, ended = (
        datetime.fromisoformat(logged(stack, "worker-blue", action, since)[-1]["ts"])
        for action in ("start_job", "refresh_tokens_pruned")
    )
    figure(
        f"{PRUNED_ROWS} refresh tokens pruned in {(ended - begun).total_seconds() * 1000:.0f} ms"
    )
    assert stack.sql("select count(*) from refresh_tokens where expires_at < now()") == "0"
    following(client, live)


def test_a_failed_login_is_logged_and_takes_as_long_for_an_unknown_user(
    stack: Stack, client: httpx2.Client, user: dict[str, str], figure: Figure
) -> None:
    since, known, unknown = now(), user["email"], f"{uuid.uuid4().hex}@example.com"
    milliseconds: dict[str, list[float]] = {known: [], unknown: []}
    answers = set()
    for _ in range(15):
        for email, times in milliseconds.items():
            answer = client.post(
                "/v1/users/login", json={"email": email, "password": "typed-wrongly"}
            )
            times.append(answer.elapsed.total_seconds() * 1000)
            answers.add((answer.status_code, answer.json()["error"], answer.json()["message"]))
    medians = [statistics.median(times) for times in milliseconds.values()]
    figure(f"failed login: known user {medians[0]:.1f} ms, unknown user {medians[1]:.1f} ms")
    assert len(answers) == 1
    # Without the dummy hash, the answer for an unknown user takes a fifth of the time.
    assert 0.5 < medians[0] / medians[1] < 2
    entries = logged_until(stack, answer, "login_failed", since)
    assert [entry["user_id"] is None for entry in entries] == [False, True] * 15
    assert not [word for word in (known, unknown, "typed-wrongly") if word in json.dumps(entries)]


def test_who_is_gone_is_told_to_log_in_again(
    stack: Stack, client: httpx2.Client, user: dict[str, str]
) -> None:
    """The state after a restore to a time before the registration: the token is still valid."""
    token = client.post("/v1/users/login", json=user).json()["access_token"]
    stack.sql(f"delete from users where email = '{user['email']}'")
    for path, body in (("/v1/items", {"name": "a"}), ("/v1/exports", None)):
        answer = client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["error"]) == (401, "not_authenticated"), (
            answer.text
        )
        assert answer.headers["www-authenticate"].startswith("Bearer")
