"""The database: one pool per process, lent out for single reads or for one transaction, never longer."""

import asyncio
import select
import time
import traceback
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
from prometheus_client import Gauge, Histogram
from psycopg import waiting
from psycopg.rows import dict_row
from sqlalchemy import URL, MetaData, Select, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.exc import InvalidatePoolError
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

LOOK_SECONDS = 0.1  # psycopg's own: how often a wait looks whether it was interrupted

POOL_SIZE = Gauge(
    "slipway_database_pool_size", "Connections of the pool.", multiprocess_mode="livesum"
)
POOL_IN_USE = Gauge(
    "slipway_database_pool_in_use", "Connections that are lent out.", multiprocess_mode="livesum"
)
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
        # A peer that vanished without a word is noticed in 5 + 3 * 2 s instead of the kernel's two hours,
        # and where a statement was just sent to it, in as many instead of a quarter of an hour.
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


# For connections that requests wait on: the kernel asks a silent peer after 1 s and gives it up at its next look.
SERVING_KEEPALIVE = {
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "tcp_user_timeout": int(PEER_SECONDS * 1000),
}


class _Connection(psycopg.AsyncConnection[Any]):
    """Breaks off where its request is over.

    psycopg asks the server to cancel and waits up to 10 s for that, which a server that hangs does not do. Here the
    connection is closed at once; the server notices within client_connection_check_interval.
    """

    @classmethod
    async def connect(cls, *arguments: Any, **options: Any) -> "_Connection":
        try:
            return await super().connect(*arguments, **options)
        except asyncio.CancelledError as error:
            # What has begun is known to these frames alone, and would hold one of Postgres' places until Python
            # collects its garbage.
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
    """Opens nothing until `start`: Gunicorn builds it before it forks."""

    def __init__(self, settings: ProcessSettings, pool_size: int | None = None) -> None:
        arguments = connect_arguments(settings) | SERVING_KEEPALIVE
        arguments |= {
            "options": session_options(SERVING_LIMITS),
            "async_creator_fn": _Connection.connect,
        }
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

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection on which every statement stands for itself."""
        return self._lend(self.engine)

    async def fetch_one(self, statement: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row of a statement made by `sql_text`, or None; each call stands for itself, as in `read`.

        For what is asked for most: SQLAlchemy's own execution takes longer than the round trip to Postgres, and all of
        it is the process' time (0.35 ms for a row by its key, 0.15 ms so). Raises psycopg's errors.
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
                # A cancelled request too: an answer that is still on its way would be taken for the next one's.
                await greenlet_spawn(lent.invalidate)
                raise
            await greenlet_spawn(lent.close)
            return row

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Lend a connection in one transaction: committed at the end, rolled back on any error."""
        async with self._lend(self._transactional) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def _lend(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        async with self._place() as limit, engine.connect() as connection:
            limit.reschedule(None)
            yield connection

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[asyncio.Timeout]:
        """Wait for a place in the pool; who has it ends the limit once the connection is there.

        A connection that is free, or a new one, is there within POOL_SECONDS: name server and handshake included.
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
        """Wait in line for one of the pool's places."""
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
    """Return a statement as `fetch_one` takes it, to be made once; its values are bound by name."""
    return str(statement.compile(dialect=PGDialectAsync_psycopg()))  # type: ignore[no-untyped-call]


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
