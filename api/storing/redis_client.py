"""Redis contains only data that can be rebuilt, and no request waits long for Redis."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import Counter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from api.configuring.settings import Settings

logger = logging.getLogger(__name__)

REDIS_SECONDS = 0.2  # chosen: a request with one unanswered call is still quick
REDIS_CONNECTIONS = 20  # per process; further calls wait up to REDIS_SECONDS for a free connection
# Chosen: after a failed call, no call is made for this long. Then one request tries Redis again.
AWAY_SECONDS = 1.0

ERRORS = Counter(
    "slipway_redis_errors_total", "Calls that failed or had no answer in time.", ("use",)
)
SKIPPED = Counter(
    "slipway_redis_skipped_total", "Calls not made because another had just failed.", ("use",)
)

T = TypeVar("T")


def create_redis(settings: Settings) -> Redis:
    """Return a client that connects on first use. The library's default retries for 4 s."""
    pool = BlockingConnectionPool(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_password.get_secret_value(),
        client_name=f"slipway.{settings.service}.{settings.slot}",
        max_connections=REDIS_CONNECTIONS,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        # One retry, for a connection that Redis closed when it restarted. No retry after a timeout.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return Redis.from_pool(pool)


class RedisAway(Exception):
    """Redis does not answer, or refuses the command; the caller continues without Redis."""


class GuardedRedis:
    """Limits the time that requests lose when Redis does not answer.

    A failed call takes REDIS_SECONDS; the calls of the next AWAY_SECONDS fail at once.
    """

    def __init__(self, client: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._away_until = 0.0  # 0: the last call was answered

    async def call(self, use: str, command: Callable[[], Awaitable[T]]) -> T:
        """Return the command's answer; `use` names the caller in the metrics.

        Raises:
            RedisAway: after REDIS_SECONDS, or at once while Redis is known to be away.
        """
        now = self._clock()
        if now < self._away_until:
            SKIPPED.labels(use).inc()
            raise RedisAway
        if self._away_until:
            # This call tries Redis again; the others go on without Redis until it is answered.
            self._away_until = now + AWAY_SECONDS
        try:
            # The pool's wait, the connection and the answer each have a limit, and these add up.
            async with asyncio.timeout(REDIS_SECONDS):
                answer = await command()
        except (RedisError, OSError) as error:  # asyncio's TimeoutError is an OSError
            self._note_failure(use, error)
            raise RedisAway from error
        if self._away_until:
            self._away_until = 0.0
            logger.info("redis answers again", extra={"action": "redis_back"})
        return answer

    def _note_failure(self, use: str, error: Exception) -> None:
        ERRORS.labels(use).inc()
        if not self._away_until:
            reason = f"{type(error).__name__} {error}".strip()
            logger.warning(
                "redis away", extra={"action": "redis_away", "use": use, "reason": reason}
            )
        self._away_until = self._clock() + AWAY_SECONDS
