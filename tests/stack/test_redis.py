"""Two processes of the API share counts and cached values in Redis."""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from api.requests.errors import ApiError
from api.requests.limits import HEADERS_KEY, Away, Claim, Limits, Rule, RuleName
from api.storing.cache import Cache
from api.storing.redis_client import GuardedRedis, create_redis
from redis import Redis as BlockingRedis
from tests.api.settings_for_tests import make_settings
from tests.conftest import Figure
from tests.stack.harness import Stack

pytestmark = pytest.mark.stack

Clients = Callable[[], Redis]


def address(stack: Stack) -> str:
    (network,) = stack.inspect("redis")["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def secret(stack: Stack, name: str) -> str:
    return (stack.root / "secrets" / name).read_text(encoding="utf-8").strip()


def run(stack: Stack, test: Callable[[Clients], Awaitable[None]]) -> None:
    """Run a test with a factory of clients of the stack's Redis, as in the API's processes."""
    password = SecretStr(secret(stack, "redis_password"))
    settings = make_settings(redis_host=address(stack), redis_port=6379, redis_password=password)

    async def main() -> None:
        # A slow call on a busy machine must not fail here; test_redis_faults.py covers the loss
        # of Redis.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("api.storing.redis_client.REDIS_SECONDS", 30.0)
            await ask()

    async def ask() -> None:
        async with contextlib.AsyncExitStack() as opened:

            def connect() -> Redis:
                client = create_redis(settings)
                opened.push_async_callback(client.aclose)
                return client

            async with asyncio.timeout(60):
                await test(connect)

    asyncio.run(main())


def asked() -> Claim:
    return Claim(RuleName.LOGIN, uuid.uuid4().hex)


def test_two_processes_share_one_count(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        limits = [
            Limits(GuardedRedis(connect()), {RuleName.LOGIN: Rule(10, 60, Away.LOCAL)})
            for _ in range(2)
        ]
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


def test_a_count_comes_back_when_the_server_s_clock_says_so_and_leaves_nothing(
    stack: Stack,
) -> None:
    async def test(connect: Clients) -> None:
        client = connect()
        limits = Limits(
            GuardedRedis(client), {RuleName.LOGIN: Rule(4, 240, Away.LOCAL)}
        )  # 4 in 240 s: one per minute
        someone = asked()
        scope: dict[str, list[tuple[bytes, bytes]]] = {}
        for _ in range(4):
            await limits.check(scope, someone)
        with pytest.raises(ApiError) as refused:
            await limits.check(scope, someone)
        assert 30 < int((refused.value.headers or {})["Retry-After"]) <= 60
        fields = dict(scope[HEADERS_KEY])
        assert fields[b"ratelimit-policy"] == b'"login";q=4;w=240'
        assert re.fullmatch(rb'"login";r=0;t=2[1-4]\d', fields[b"ratelimit"])
        # The key expires when the whole quota is available again.
        assert 210_000 < int(stack.redis("pttl", someone.key)) <= 240_000
        whole_at = int(stack.redis("get", someone.key))
        assert 210 < whole_at / 1_000_000 - int(stack.redis("time").split()[0]) <= 241
        # Move the count by a minute, as if a minute had passed.
        stack.redis("set", someone.key, str(whole_at - 60_000_000), "keepttl")
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
        stack.redis("script", "flush")
        with pytest.raises(ApiError):
            await limits.check({}, someone)

    run(stack, test)


def test_a_value_is_made_once_and_again_after_it_was_forgotten(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        one, two = (Cache(GuardedRedis(connect()), "test", 30) for _ in range(2))
        key, made = uuid.uuid4().hex, 0

        async def make() -> bytes:
            nonlocal made
            made += 1
            await asyncio.sleep(0.05)
            return b'{"made":%d}' % made

        assert set(await asyncio.gather(*(one.get(key, make) for _ in range(20)))) == {
            b'{"made":1}'
        }
        assert await two.get(key, make) == b'{"made":1}'
        await two.forget(key)
        assert await one.get(key, make) == b'{"made":2}'
        lifetime = int(stack.redis("pttl", f"cache:test:{key}"))
        assert 18_000 < lifetime <= 36_000

    run(stack, test)


def test_a_value_that_was_read_before_a_change_is_not_kept(stack: Stack) -> None:
    async def test(connect: Clients) -> None:
        slow, writer = (Cache(GuardedRedis(connect()), "test", 30) for _ in range(2))
        key = uuid.uuid4().hex
        has_read, may_go_on = asyncio.Event(), asyncio.Event()

        async def make_slowly() -> bytes:
            has_read.set()
            await may_go_on.wait()
            return b"before the change"

        async def make() -> bytes:
            return b"after the change"

        reading = asyncio.create_task(slow.get(key, make_slowly))
        await has_read.wait()
        await writer.forget(key)
        # A read that begins after the change does not share the result of a read that began before,
        # even in the same process.
        after = asyncio.create_task(slow.get(key, make))
        assert await after == b"after the change"
        may_go_on.set()
        assert await reading == b"before the change"
        assert await writer.get(key, make) == b"after the change"

    run(stack, test)


def test_a_summary_is_never_older_than_ones_own_write(stack: Stack, figure: Figure) -> None:
    with stack.client(headers={"Authorization": f"Bearer {stack.new_token()}"}) as client:

        def summary() -> dict[str, int]:
            answer = client.get("/v1/item-summary")
            assert answer.status_code == 200
            return dict(answer.json())

        assert summary() == {"count": 0, "price_cents": 0}
        items = []
        for number in range(1, 11):
            items.append(
                client.post("/v1/items", json={"name": "a", "price_cents": 5}).json()["id"]
            )
            assert summary() == summary() == {"count": number, "price_cents": 5 * number}
        client.put(f"/v1/items/{items[0]}", json={"name": "a"})
        assert summary() == {"count": 10, "price_cents": 45}
        client.delete(f"/v1/items/{items[1]}")
        assert summary() == {"count": 9, "price_cents": 40}
        owner = client.get("/v1/users/me").json()["id"]
        made = (
            f"select gen_random_uuid(), '{owner}', 'item ' || n, n from generate_series(1, 20000) n"
        )
        stack.sql(f"insert into items (id, owner_id, name, price_cents) {made}")
        client.delete(f"/v1/items/{items[2]}")
        seconds = []
        for _ in range(10):
            answer = client.get("/v1/item-summary")
            seconds.append(float(answer.headers["server-timing"].removeprefix("app;dur=")))
        assert answer.json()["count"] == 20_008
    figure(
        f"summary of 20,000 items: {seconds[0]:.1f} ms made, {sorted(seconds[1:])[4]:.1f} "
        "ms from Redis"
    )


# The commands that api/ uses (redis/users.conf lists where), and those that a connection may send
# before its login.
USED = {
    "client|setinfo",
    "client|setname",
    "del",
    "evalsha",
    "get",
    "getex",
    "hget",
    "hmget",
    "hset",
    "pexpire",
    "ping",
    "script|load",
    "set",
    "time",
}
BEFORE_LOGIN = {"auth", "hello", "quit", "reset"}
REFUSED = (
    "flushall",
    "flushdb",
    "config get maxmemory",
    "config set maxmemory 0",
    "keys *",
    "script flush",
    "shutdown nosave",
    "acl list",
    "client list",
    "monitor",
    "bgrewriteaof",
    "eval return 0",
    "get drill:kept",
    "set drill:kept 1",
    "publish limit:news 1",
)


def test_the_application_may_give_the_commands_that_it_uses_and_no_other(stack: Stack) -> None:
    with BlockingRedis(
        address(stack),
        username="operator",
        password=secret(stack, "redis_admin_password"),
        decode_responses=True,
    ) as operator:
        names = sorted(
            {name for category in operator.acl_cat() for name in operator.acl_cat(category)}
        )
        allowed = set()
        for name, facts in operator.execute_command("COMMAND", "INFO", *names).items():
            if facts["subcommands"]:
                continue
            words = name.split("|")
            words += ["1"] * (abs(facts["arity"]) - len(words))
            verdict = operator.execute_command("ACL", "DRYRUN", "default", *words)
            if "to run the" not in verdict:
                allowed.add(name)
        dangerous = {
            name for category in ("dangerous", "admin") for name in operator.acl_cat(category)
        }
    assert len(names) > 300
    assert allowed == USED | BEFORE_LOGIN
    assert not allowed & dangerous


@pytest.mark.parametrize("command", REFUSED)
def test_the_application_is_refused_what_is_not_its_own(stack: Stack, command: str) -> None:
    with BlockingRedis(address(stack), password=secret(stack, "redis_password")) as application:
        assert application.ping()
        with pytest.raises(NoPermissionError):
            application.execute_command(*command.split())


def test_nobody_gets_in_without_a_password_or_with_the_other_user_s(stack: Stack) -> None:
    for username, password in (
        (None, None),
        (None, secret(stack, "redis_admin_password")),
        ("operator", secret(stack, "redis_password")),
        ("slipway", secret(stack, "redis_password")),
    ):
        with (
            BlockingRedis(address(stack), username=username, password=password) as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.ping()
