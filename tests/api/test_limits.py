"""The rules, the arithmetic and the answers of rate limits; the stack tests use Redis."""

import asyncio
import re
from typing import Any

import pytest
from fastapi import FastAPI, Request
from redis.exceptions import ConnectionError as RedisConnectionError

from api.app import create_app
from api.requests.limits import (
    HEADERS_KEY,
    LOCAL_KEYS,
    Away,
    Claim,
    Limits,
    LocalCounts,
    Rule,
    RuleName,
    address_of,
    rules,
)
from api.storing.redis_client import AWAY_SECONDS, GuardedRedis, RedisAway, create_redis
from tests.api.settings_for_tests import make_settings
from tests.api.test_errors_and_middleware import assert_error, call

TEN_A_MINUTE = Rule(10, 60, Away.LOCAL)
SECOND = 1_000_000


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def login(whose: str = "a") -> tuple[Claim, Rule]:
    return Claim(RuleName.LOGIN, whose), TEN_A_MINUTE


def test_the_quota_passes_at_once_and_comes_back_evenly(clock: Clock) -> None:
    counts = LocalCounts(clock)
    taken = [counts.take([login()]) for _ in range(11)]
    assert [answer[0] for answer in taken] == [0] * 10 + [6 * SECOND]
    assert [answer[1] for answer in taken] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    clock.now += 5.999
    assert counts.take([login()])[0] == pytest.approx(1000, abs=2)
    clock.now += 0.001
    assert counts.take([login()])[:2] == [0, 0]
    assert counts.take([login()])[0] == 6 * SECOND
    clock.now += 60
    assert counts.take([login()])[:2] == [0, 9]


def test_who_is_refused_by_one_rule_is_counted_by_none(clock: Clock) -> None:
    counts = LocalCounts(clock)
    address = Claim(RuleName.LOGIN_ADDRESS, "a"), Rule(30, 60, Away.LOCAL)
    for _ in range(15):
        answer = counts.take([login(), address])
    assert answer[0] == 6 * SECOND
    assert answer[3] == 20, "five refused requests were counted"


def test_one_clients_count_is_not_anothers(clock: Clock) -> None:
    counts = LocalCounts(clock)
    for _ in range(11):
        counts.take([login("a")])
    assert counts.take([login("b")])[0] == 0


def test_the_counts_of_a_process_are_bounded(clock: Clock) -> None:
    counts = LocalCounts(clock)
    for number in range(LOCAL_KEYS + 100):
        counts.take([login(str(number))])
    assert len(counts._whole_at) == LOCAL_KEYS
    assert counts.take([login(str(LOCAL_KEYS + 99))])[1] == 8


def test_every_rule_has_its_place_in_the_table_and_takes_its_number_from_the_settings() -> None:
    table = rules(
        make_settings(
            user_limit_per_second=7,
            login_limit_per_minute=8,
            registration_limit_per_hour=9,
            export_limit_per_hour=10,
        )
    )
    assert {name: (rule.quota, rule.seconds, rule.away.value) for name, rule in table.items()} == {
        "user": (14, 2, "open"),
        "login": (8, 60, "local"),
        "login-address": (24, 60, "local"),
        "refresh": (48, 60, "local"),
        "ops-login": (8, 60, "local"),
        "registration": (9, 3600, "local"),
        "export": (10, 3600, "local"),
    }
    assert set(table) == set(RuleName)


def test_neither_an_address_nor_an_account_is_in_a_key() -> None:
    key = Claim(RuleName.LOGIN, "192.0.2.1 someone@example.com").key
    assert re.fullmatch(r"limit:login:[0-9a-f]{32}", key)
    assert len(Claim(RuleName.LOGIN, "x" * 10_000).key) == len(key)


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_counts_as_its_customer(host: str, counted: str) -> None:
    assert address_of(Request({"type": "http", "client": (host, 0), "headers": []})) == counted


@pytest.fixture
def app() -> FastAPI:
    """An API without Redis and without a database."""
    return create_app(make_settings(login_limit_per_minute=2, registration_limit_per_hour=1))


def test_without_redis_logins_are_counted_in_the_process(app: FastAPI, clock: Clock) -> None:
    app.state.limits._local = LocalCounts(clock)
    someone = {"email": "a@example.org", "password": "x"}
    for left in (1, 0):
        passed = call(app, "POST", "/v1/users/login", json=someone)
        assert_error(passed, 503, "database_unavailable")
        assert passed.headers["ratelimit-policy"] == '"login";q=2;w=60, "login-address";q=6;w=60'
        assert passed.headers["ratelimit"].startswith(f'"login";r={left};t=')
    refused = call(app, "POST", "/v1/users/login", json=someone)
    assert_error(refused, 429, "too_many_requests")
    assert refused.headers["retry-after"] == "30"
    assert refused.json()["details"] == {"retry_after_seconds": 30}
    assert refused.headers["ratelimit"].startswith('"login";r=0;t=60, "login-address";r=4;t=')
    other = call(app, "POST", "/v1/users/login", json={**someone, "email": "b@example.org"})
    assert_error(other, 503, "database_unavailable")


def test_without_redis_an_open_rule_lets_everything_pass_and_says_nothing(app: FastAPI) -> None:
    limits: Limits = app.state.limits
    scope: dict[str, Any] = {}

    async def ask() -> None:
        for _ in range(1000):
            await limits.check(scope, Claim(RuleName.USER, "someone"))

    asyncio.run(ask())
    assert scope[HEADERS_KEY] == []


def test_a_redis_that_failed_is_left_alone_for_a_second_and_then_tried_by_one(clock: Clock) -> None:
    guarded = GuardedRedis(create_redis(make_settings()), clock)
    asked = 0
    is_away = True

    async def command() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if is_away:
            raise RedisConnectionError("refused")
        return "answer"

    async def ask(times: int) -> list[Any]:
        return await asyncio.gather(
            *(guarded.call("test", command) for _ in range(times)), return_exceptions=True
        )

    assert [type(answer) for answer in asyncio.run(ask(1))] == [RedisAway]
    asyncio.run(ask(50))
    assert asked == 1
    clock.now += AWAY_SECONDS
    asyncio.run(ask(50))
    assert asked == 2
    is_away = False
    clock.now += AWAY_SECONDS
    assert asyncio.run(ask(2))[0] == "answer"
    assert asyncio.run(ask(2)) == ["answer", "answer"]


def test_a_redis_that_hangs_costs_a_request_its_fifth_of_a_second_once(clock: Clock) -> None:
    guarded = GuardedRedis(create_redis(make_settings()), clock)

    async def ask() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(20):
            with pytest.raises(RedisAway):
                await guarded.call("test", lambda: asyncio.sleep(30))
        return loop.time() - started

    assert 0.15 < asyncio.run(ask()) < 3, "each of 20 calls waited 0.2 s"
