"""Readiness: checks the database, the migrations and Redis; concurrent probes share a check."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Self

import psycopg.errors
import sqlalchemy.exc
from redis.asyncio import Redis
from sqlalchemy import text

from api.configuring.timeouts import READY_CACHE_SECONDS, READY_SECONDS
from api.health.schemas import Check, Ready
from api.migrating.revisions import Migrations, code_migrations
from api.requests.errors import is_database_unavailable
from api.storing.database import Database

logger = logging.getLogger(__name__)

AskDatabase = Callable[[], Awaitable[str | None]]
AskRedis = Callable[[], Awaitable[object]]


async def applied_revision(database: Database) -> str | None:
    """Return the database's migration head, or None if it is empty. One query serves two checks."""
    try:
        async with database.read() as connection:
            return (
                await connection.execute(text("SELECT version_num FROM alembic_version"))
            ).scalar_one_or_none()
    except sqlalchemy.exc.ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.UndefinedTable):
            return None
        raise


class Readiness:
    """The checks, and the last answer."""

    def __init__(
        self,
        ask_database: AskDatabase,
        ask_redis: AskRedis,
        migrations: Migrations,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_database = ask_database
        self._ask_redis = ask_redis
        self._migrations = migrations
        self._clock = clock
        self._answer: Ready | None = None
        self._answered_at = 0.0
        self._asking: asyncio.Task[Ready] | None = None

    @classmethod
    def of(cls, database: Database, redis: Redis) -> Self:
        """Return the readiness of a process with this pool and this client."""

        async def ping() -> object:
            return await redis.ping()

        return cls(lambda: applied_revision(database), ping, code_migrations())

    async def check(self) -> Ready:
        """Return an answer at most READY_CACHE_SECONDS old; concurrent callers share one check."""
        if self._answer and self._clock() - self._answered_at < READY_CACHE_SECONDS:
            return self._answer
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        # Shielded: a probe that gives up must not cancel the check for the others.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Ready:
        try:
            (database, applied), (redis, _) = await asyncio.gather(
                _timed(self._ask_database()), _timed(self._ask_redis())
            )
            checks = {
                "database": database,
                "migrations": self._check_migrations(database, applied),
                "redis": redis,
            }
            answer = Ready(status=_status(checks), checks=checks)
            if self._answer is None or self._answer.status != answer.status:
                self._log(answer)
            self._answer, self._answered_at = answer, self._clock()
            return answer
        finally:
            self._asking = None

    def _check_migrations(self, database: Check, applied: object) -> Check:
        if not database.ok:
            return Check(ok=False, ms=database.ms, error="unknown")
        head = applied if isinstance(applied, str) else None
        if self._migrations.accepts(head):
            return Check(ok=True, ms=database.ms)
        return Check(
            ok=False, ms=database.ms, error=f"at {head or 'none'}, expected {self._migrations.head}"
        )

    def _log(self, answer: Ready) -> None:
        failed = {name: check.error for name, check in answer.checks.items() if not check.ok}
        level = logging.WARNING if failed else logging.INFO
        extra = {"action": "readiness_changed", "status": answer.status, "failed": failed}
        logger.log(level, "readiness is %s", answer.status, extra=extra)


def _status(checks: dict[str, Check]) -> str:
    if not (checks["database"].ok and checks["migrations"].ok):
        return "unavailable"
    return "ready" if checks["redis"].ok else "degraded"


async def _timed(question: Awaitable[object]) -> tuple[Check, object]:
    started = time.perf_counter()
    answer, error = None, None
    try:
        async with asyncio.timeout(READY_SECONDS):
            answer = await question
    except TimeoutError:
        error = "timeout"
    except Exception as problem:
        error = "unavailable" if is_database_unavailable(problem) else type(problem).__name__
    return Check(
        ok=error is None, ms=round((time.perf_counter() - started) * 1000, 2), error=error
    ), answer
