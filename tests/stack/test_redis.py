"""What two processes of the API share in Redis: counts, and values that are kept for a while."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from api.errors import ApiError
from api.limits import HEADERS_KEY, Asked, Away, Limits, Rule, RuleName
from api.redis_client import GuardedRedis, create_redis
from tests.api.settings_for_tests import make_settings
from tests.stack.harness import Stack

pytestmark = pytest.mark.stack

Clients = Callable[[], Redis]


def run(stack: Stack, test: Callable[[Clients], Awaitable[None]]) -> None:
    """Run a test that makes clients of the stack's Redis, as the API's processes do."""
    networks = stack.inspect("redis")["NetworkSettings"]["Networks"]
    password = SecretStr((stack.root / "secrets/redis_password").read_text(encoding="utf-8").strip())
    (address,) = (network["IPAddress"] for network in networks.values())
    settings = make_settings(redis_host=address, redis_port=6379, redis_password=password)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as opened:

            def connect() -> Redis:
                client = create_redis(settings)
                opened.push_async_callback(client.aclose)
                return client

            async with asyncio.timeout(20):
                await test(connect)

    asyncio.run(main())


def asked() -> Asked:
    return Asked(RuleName.LOGIN, uuid.uuid4().hex)


def test_two_processes_share_one_count(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        limits = [Limits(GuardedRedis(connect()), {RuleName.LOGIN: Rule(10, 60, Away.LOCAL)}) for _ in range(2)]
        someone = asked()

        async def passes(number: int) -> bool:
            try:
                await limits[number % 2].check({}, someone)
            except ApiError:
                return False
            return True

        given = await asyncio.gather(*(passes(number) for number in range(30)))
        assert given.count(True) == 10

    run(stack, test)


def test_a_count_comes_back_when_the_server_s_clock_says_so_and_leaves_nothing(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        client = connect()
        limits = Limits(GuardedRedis(client), {RuleName.LOGIN: Rule(4, 2, Away.LOCAL)})  # one in half a second
        someone = asked()
        scope: dict[str, list[tuple[bytes, bytes]]] = {}
        for _ in range(4):
            await limits.check(scope, someone)
        with pytest.raises(ApiError) as refused:
            await limits.check(scope, someone)
        assert refused.value.headers == {"Retry-After": "1"}
        assert dict(scope[HEADERS_KEY]) == {
            b"ratelimit-policy": b'"login";q=4;w=2',
            b"ratelimit": b'"login";r=0;t=2',
        }
        # The key lives as long as it says something, to the millisecond.
        assert 1000 < await client.pttl(someone.key) <= 2000
        await asyncio.sleep(0.6)
        await limits.check(scope, someone)
        with pytest.raises(ApiError):
            await limits.check(scope, someone)

    run(stack, test)


def test_a_clock_that_was_set_back_locks_nobody_out(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        client = connect()
        limits = Limits(GuardedRedis(client), {RuleName.LOGIN: Rule(10, 10, Away.LOCAL)})
        someone = asked()
        await client.set(someone.key, int((time.time() + 86_400) * 1_000_000), ex=60)
        with pytest.raises(ApiError) as refused:
            await limits.check({}, someone)
        assert refused.value.headers == {"Retry-After": "1"}

    run(stack, test)


def test_a_flushed_redis_gets_the_script_again(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        limits = Limits(GuardedRedis(connect()), {RuleName.LOGIN: Rule(1, 60, Away.OPEN)})
        someone = asked()
        await limits.check({}, someone)
        await connect().script_flush()
        with pytest.raises(ApiError):
            await limits.check({}, someone)

    run(stack, test)
