"""The database: one pool per process, which lends a connection for a read or for a transaction."""

import asyncio
import logging
import select
import time
import traceback
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
from prometheus_client import Gauge, Histogram
from psycopg import waiting
from psycopg.rows import dict_row
from sqlalchemy import URL, MetaData, Select, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import greenlet_spawn

from api.configuring.settings import ProcessSettings
from api.configuring.timeouts import (
    CONNECT_SECONDS,
    LOCK_SECONDS,
    PEER_SECONDS,
    POOL_SECONDS,
    REQUEST_SECONDS,
    STATEMENT_SECONDS,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1  # psycopg's default: how often a wait checks whether it was interrupted

POOL_SIZE = Gauge(
    "slipway_database_pool_size", "Connections of the pool.", multiprocess_mode="livesum"
)
POOL_IN_USE = Gauge(
    "slipway_database_pool_in_use", "Connections that are lent out.", multiprocess_mode="livesum"
)
POOL_WAIT = Histogram(
    "slipway_database_pool_wait_seconds",
    "Waits of requests that found no connection free; the last bucket holds those that got none.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, POOL_SECONDS),
)

# Names are not numbered by order of creation, so a migration knows the name of an earlier index.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base class of every table."""

    metadata = MetaData(naming_convention=NAMES)


def connect_arguments(settings: ProcessSettings) -> dict[str, Any]:
    """Return psycopg's keywords for a connection of this process, without limits on statements."""
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
        # An idle connection to a server that vanished is closed after 5 + 3 * 2 s, where the kernel
        # would wait two hours; a connection that runs a statement after 11 s, instead of 15 min.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 11_000,  # milliseconds
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


# For connections that requests wait on: the kernel probes a silent server after 1 s, and gives up
# at the next probe.
SERVING_KEEPALIVE = {
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "tcp_user_timeout": int(PEER_SECONDS * 1000),
}


class _Connection(psycopg.AsyncConnection[Any]):
    """A connection that is closed at once when its request is cancelled.

    psycopg asks the server to cancel and waits up to 10 s, but a server that hangs does not cancel.
    The server notices the closed connection within client_connection_check_interval.
    """

    @classmethod
    async def connect(cls, *arguments: Any, **options: Any) -> "_Connection":
        try:
            return await super().connect(*arguments, **options)
        except asyncio.CancelledError as error:
            # Only these frames refer to the unfinished connection. Until the garbage collector
            # frees them, it would occupy one of Postgres' max_connections.
            traceback.clear_frames(error.__traceback__)
            raise

    async def wait(
        self,
        gen: Generator[Any, Any, Any],
        interval: float = LOOK_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109  psycopg's signature
    ) -> Any:
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class Database:
    """The pool of one process. It opens nothing before `start`: Gunicorn builds it, then forks."""

    def __init__(self, settings: ProcessSettings, pool_size: int | None = None) -> None:
        arguments = connect_arguments(settings) | SERVING_KEEPALIVE
        arguments |= {
            "options": session_options(SERVING_LIMITS),
            "async_creator_fn": _Connection.connect,
        }
        size = pool_size or settings.database_pool_size
        # SQLAlchemy's queue does not keep the order: under load, later requests overtook earlier
        # ones, and some of the earlier ones timed out.
        self._turns = asyncio.Semaphore(size)
        self._size = size
        self.engine = create_async_engine(
            URL.create("postgresql+psycopg"),
            connect_args=arguments,
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            pool_recycle=1800,  # chosen: a Postgres backend gives its memory back only when it ends
            # A read runs without BEGIN and ROLLBACK, which are two of three round trips;
            # `transaction` sets its own level.
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            hide_parameters=True,  # an error's text must not put a password hash into a log
        )
        self._transactional = self.engine.execution_options(isolation_level="READ COMMITTED")
        event.listen(self.engine.sync_engine, "checkout", _refuse_dead_connection)

    async def start(self) -> None:
        """Prepare the pool of this process. Call it after the fork."""
        # Connections of the parent process belong to it: forget them, do not close them.
        await self.engine.dispose(close=False)
        POOL_SIZE.set(self._size)

    async def warm(self) -> None:
        """Open every connection of the pool, so that no request of a new process waits for one.

        On a busy host a new connection may take longer than POOL_SECONDS, and its request then
        fails. If the database does not answer, this only logs: each request connects by itself.
        """
        async with AsyncExitStack() as lent:
            try:
                for _ in range(self._size):
                    await lent.enter_async_context(self.read())
            except SQLAlchemyError as error:
                logger.warning(
                    "connections not opened in advance",
                    extra={"action": "pool_not_warm", "reason": type(error).__name__},
                )

    async def close(self) -> None:
        """Close every connection of the pool."""
        await self.engine.dispose()

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection in autocommit mode."""
        return self._lend(self.engine)

    async def fetch_one(self, statement: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row of a statement made by `sql_text`, or None; in autocommit mode, as `read`.

        It is for the most frequent reads. SQLAlchemy's execution takes longer than the round trip
        to Postgres, all of it CPU time of this process: 0.35 ms for a row by its key, 0.15 ms here.

        Raises:
            psycopg.Error: unlike the other methods, which raise SQLAlchemy's errors.
        """
        async with self._place() as limit:
            lent = await greenlet_spawn(self.engine.sync_engine.raw_connection)
            limit.reschedule(None)
            raw: Any = lent.driver_connection
            try:
                async with raw.cursor(row_factory=dict_row) as cursor:
                    await cursor.execute(statement, values)
                    row: dict[str, Any] | None = await cursor.fetchone()
            except BaseException:
                # Also after a cancelled request: the next request would read that one's answer.
                await greenlet_spawn(lent.invalidate)
                raise
            await greenlet_spawn(lent.close)
            return row

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in a transaction: committed at the end, rolled back after an error."""
        async with self._lend(self._transactional) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def _lend(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        async with self._place() as limit, engine.connect() as connection:
            limit.reschedule(None)
            yield connection

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[asyncio.Timeout]:
        """Wait for a place in the pool; the caller ends the time limit once it has a connection.

        POOL_SECONDS includes the name server and the handshake of a new connection.
        """
        try:
            async with asyncio.timeout(POOL_SECONDS) as limit, self._turn():
                yield limit
        except TimeoutError:
            if not limit.expired():
                raise
            raise PoolTimeoutError(f"no connection within {POOL_SECONDS:g} s") from None

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Wait in line for a place in the pool."""
        has_to_wait = self._turns.locked()
        started = time.perf_counter()
        try:
            await self._turns.acquire()
        finally:
            if has_to_wait:
                POOL_WAIT.observe(time.perf_counter() - started)
        POOL_IN_USE.inc()
        try:
            yield
        finally:
            POOL_IN_USE.dec()
            self._turns.release()


def sql_text(statement: Select[*tuple[Any, ...]]) -> str:
    """Return a statement as text for `fetch_one`, with values bound by name. Build it once."""
    return str(statement.compile(dialect=PGDialectAsync_psycopg()))  # type: ignore[no-untyped-call]


def _refuse_dead_connection(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    # An idle connection that is readable was closed by the server. This check costs a microsecond;
    # a ping would cost a round trip. It keeps requests from failing after a restart of Postgres.
    raw = dbapi_connection.driver_connection
    if raw.closed or _is_readable(raw.fileno()):
        raise InvalidatePoolError("the server closed this connection")


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
