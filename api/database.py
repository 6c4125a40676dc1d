"""The database: one pool per process, lent out for single reads or for one transaction, never longer."""

import asyncio
import select
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import Gauge, Histogram
from sqlalchemy import URL, MetaData, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from api.settings import ProcessSettings
from api.timeouts import CONNECT_SECONDS, LOCK_SECONDS, POOL_SECONDS, REQUEST_SECONDS, STATEMENT_SECONDS

POOL_SIZE = Gauge("slipway_database_pool_size", "Connections of the pool.", multiprocess_mode="livesum")
POOL_IN_USE = Gauge("slipway_database_pool_in_use", "Connections that are lent out.", multiprocess_mode="livesum")
POOL_WAIT = Histogram(
    "slipway_database_pool_wait_seconds",
    "How long those waited for a connection that found none free; the last bucket holds who got none.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, POOL_SECONDS),
)

# Names that do not depend on the order of creation, so that a migration can drop what another one made.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)


def connect_arguments(settings: ProcessSettings) -> dict[str, Any]:
    """Return psycopg's keywords for any connection of this process, without time limits on statements."""
    return {
        "host": settings.database_host,
        "port": settings.database_port,
        "dbname": settings.database_name,
        "user": settings.database_user,
        "password": settings.database_password.get_secret_value(),
        "application_name": f"slipway.{settings.service}.{settings.slot}",
        "connect_timeout": int(CONNECT_SECONDS),
        "sslmode": settings.database_sslmode,
        **({"sslrootcert": settings.database_sslrootcert} if settings.database_sslrootcert else {}),
        # A peer that vanished without a word is noticed in 5 + 3 * 2 s instead of the kernel's two hours.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }


def session_options(settings: dict[str, float]) -> str:
    """Return libpq `options` that set server-side limits, given in seconds."""
    limits = (f"-c {name}={int(seconds * 1000)}" for name, seconds in settings.items())
    return " ".join(("-c timezone=UTC", *limits))


SERVING_LIMITS = {
    "statement_timeout": STATEMENT_SECONDS,
    "lock_timeout": LOCK_SECONDS,
    "idle_in_transaction_session_timeout": REQUEST_SECONDS,
}


class Database:
    """Opens nothing until `start`: Gunicorn builds it before it forks."""

    def __init__(self, settings: ProcessSettings, pool_size: int | None = None) -> None:
        arguments = connect_arguments(settings) | {"options": session_options(SERVING_LIMITS)}
        size = pool_size or settings.database_pool_size
        # The pool's own queue lets newcomers overtake: under load some waited out their second, at random.
        self._turns = asyncio.Semaphore(size)
        self._size = size
        self.engine = create_async_engine(
            URL.create("postgresql+psycopg"),
            connect_args=arguments,
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            pool_recycle=1800,  # chosen: lets the server free the memory that a long-lived backend collects
            # Reads run without BEGIN and ROLLBACK, two round trips of three; `transaction` asks for its own.
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            hide_parameters=True,  # an error text must not carry a password hash into a log
        )
        self._transactional = self.engine.execution_options(isolation_level="READ COMMITTED")
        event.listen(self.engine.sync_engine, "checkout", _refuse_dead_connection)

    async def start(self) -> None:
        # Connections that the parent process may have opened are its own: forget them, do not close them.
        await self.engine.dispose(close=False)
        POOL_SIZE.set(self._size)

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection on which every statement stands for itself."""
        async with self._turn(), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in one transaction: committed at the end, rolled back on any error."""
        async with self._turn(), self._transactional.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Wait in line for one of the pool's connections, at most POOL_SECONDS."""
        has_to_wait = self._turns.locked()
        started = time.perf_counter()
        try:
            async with asyncio.timeout(POOL_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise PoolTimeoutError(f"no free connection within {POOL_SECONDS:g} s") from None
        finally:
            if has_to_wait:
                POOL_WAIT.observe(time.perf_counter() - started)
        POOL_IN_USE.inc()
        try:
            yield
        finally:
            POOL_IN_USE.dec()
            self._turns.release()


def _refuse_dead_connection(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    # An idle connection has nothing to say; one that is readable was closed by the server. A look costs a
    # microsecond where a ping costs a round trip, and the restart of Postgres stays invisible.
    raw = dbapi_connection.driver_connection
    if raw.closed or _is_readable(raw.fileno()):
        raise InvalidatePoolError("the server closed this connection")


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
