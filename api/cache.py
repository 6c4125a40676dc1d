"""Redis: holds only what can be rebuilt, and never keeps a request waiting for long."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from api.settings import Settings

REDIS_SECONDS = 0.2  # chosen: a request can afford one unanswered call and still be quick
REDIS_CONNECTIONS = 20  # per process; more wait up to REDIS_SECONDS for a free one


def create_redis(settings: Settings) -> Redis:
    """Return a client that connects on first use; by default it would retry for 4 s."""
    pool = BlockingConnectionPool(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_password.get_secret_value(),
        client_name=f"slipway.{settings.service}.{settings.slot}",
        max_connections=REDIS_CONNECTIONS,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        # Once, and only for a connection that Redis closed on restart: a timeout is not asked twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return Redis.from_pool(pool)
