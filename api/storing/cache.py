"""Cache-aside in Redis: keeps an expensive answer for a while, and deletes it when it changes.

Use it only for an answer that costs the database far more than a round trip to Redis, and that is
read far more often than it changes. Do not use it to read a row by its key.
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
    "Reads by outcome: hit, miss, shared (another request of this process computes it), or Redis"
    " away.",
    ("cache", "outcome"),
)
# Lifetimes differ by up to a fifth, so that entries of the same moment do not expire together.
JITTER = 0.2

# An entry is made in two steps. LOOK stores a token if there is no value. KEEP stores the value
# only if that token is still there. A change of the rows deletes the entry and its token, so a
# value that was read before the change is not kept.
LOOK = """
local entry = redis.call('HMGET', KEYS[1], 'token', 'value')
if not entry[1] then
    redis.call('HSET', KEYS[1], 'token', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    entry[1] = ARGV[1]
end
return entry
"""
KEEP = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
    redis.call('HSET', KEYS[1], 'value', ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
"""


class Cache:
    """One kind of cached answer, as bytes by key. If Redis is away, each read is a miss."""

    def __init__(self, redis: GuardedRedis, name: str, seconds: float) -> None:
        self._redis = redis
        self._name = name
        self._milliseconds = seconds * 1000
        self._look = redis.client.register_script(LOOK)
        self._keep = redis.client.register_script(KEEP)
        self._being_made: dict[bytes, asyncio.Task[bytes]] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the cached value, or compute and keep it.

        Requests of one process that miss at the same time share one computation.
        """
        args: list[str | int] = [uuid.uuid4().hex, self._lifetime()]
        try:
            token, value = await self._redis.call(
                "cache", lambda: self._look(keys=[self._key(key)], args=args)
            )
        except RedisAway:
            # Not shared: without a token a running computation may be older than a change.
            REQUESTS.labels(self._name, "away").inc()
            return await make()
        if value is not None:
            REQUESTS.labels(self._name, "hit").inc()
            return bytes(value)
        making = self._being_made.get(token)
        REQUESTS.labels(self._name, "shared" if making else "miss").inc()
        if making is None:
            making = self._being_made[token] = asyncio.create_task(self._make(key, token, make))
        # Shielded: a client that disconnects must not cancel the computation for the others.
        return await asyncio.shield(making)

    async def forget(self, key: str) -> None:
        """Delete an entry. Call it after the change is committed and before the answer is sent.

        If Redis fails at that moment, reads may return the old value until its lifetime ends.
        """
        try:
            await self._redis.call("cache", lambda: self._redis.client.delete(self._key(key)))
        except RedisAway:
            REQUESTS.labels(self._name, "not_forgotten").inc()

    async def _make(self, key: str, token: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            value = await make()
            args: list[bytes | int] = [token, value, self._lifetime()]
            with contextlib.suppress(RedisAway):  # then the next read computes it again
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
