"""Cache-aside in Redis: an answer that is dear to make is kept for a while, and forgotten when it is no longer true.

Worth it only for what costs the database far more than a round trip to Redis, and is asked for far more often than it
changes. A row by its key is neither.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from api.storing.redis_client import GuardedRedis, RedisAway

REQUESTS = Counter(
    "slipway_cache_requests_total",
    "Reads by what they found: hit, miss, shared (another request of this process is making it), or Redis away.",
    ("cache", "outcome"),
)
JITTER = 0.2  # lifetimes differ by a fifth either way, so that what was made at once does not end at once

# An entry is made in two steps. LOOK leaves a token where there is no value; KEEP stores the value only where that
# token still stands. Who changes the rows deletes the entry, and the token with it: a value that was read before the
# change comes too late, and is not kept.
LOOK = """
local found = redis.call('HMGET', KEYS[1], 'token', 'value')
if not found[1] then
    redis.call('HSET', KEYS[1], 'token', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    found[1] = ARGV[1]
end
return found
"""
KEEP = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
    redis.call('HSET', KEYS[1], 'value', ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
"""


class Cache:
    """One kind of cached answer, as bytes by key. Redis away is a miss, never an error."""

    def __init__(self, redis: GuardedRedis, name: str, seconds: float) -> None:
        self._redis = redis
        self._name = name
        self._milliseconds = seconds * 1000
        self._look = redis.client.register_script(LOOK)
        self._keep = redis.client.register_script(KEEP)
        self._being_made: dict[bytes, asyncio.Task[bytes]] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the kept value, or make it; of the requests that miss together in a process, one makes it for all."""
        args: list[str | int] = [uuid.uuid4().hex, self._lifetime()]
        try:
            token, value = await self._redis.call(
                "cache", lambda: self._look(keys=[self._key(key)], args=args)
            )
        except RedisAway:
            # Without a token nobody knows whether a value that is being made is older than a change.
            REQUESTS.labels(self._name, "away").inc()
            return await make()
        if value is not None:
            REQUESTS.labels(self._name, "hit").inc()
            return bytes(value)
        making = self._being_made.get(token)
        REQUESTS.labels(self._name, "shared" if making else "miss").inc()
        if making is None:
            making = self._being_made[token] = asyncio.create_task(self._make(key, token, make))
        # Shielded: a client that goes away must not take the value away from the others.
        return await asyncio.shield(making)

    async def forget(self, key: str) -> None:
        """Delete an entry after a change was committed, before its maker is answered.

        Where Redis fails at that very moment, a value from before may be read until its lifetime ends.
        """
        try:
            await self._redis.call("cache", lambda: self._redis.client.delete(self._key(key)))
        except RedisAway:
            REQUESTS.labels(self._name, "not_forgotten").inc()

    async def _make(self, key: str, token: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            value = await make()
            args: list[bytes | int] = [token, value, self._lifetime()]
            with contextlib.suppress(RedisAway):  # then it is made again
                await self._redis.call(
                    "cache", lambda: self._keep(keys=[self._key(key)], args=args)
                )
            return value
        finally:
            del self._being_made[token]

    def _key(self, key: str) -> str:
        return f"cache:{self._name}:{key}"

    def _lifetime(self) -> int:
        return int(self._milliseconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  no secret
