"""Names the session that blocks a migration, which is known only while the migration waits."""

import threading
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy import Connection

LOOK_SECONDS = 0.1  # between two queries; several fit into one lock_timeout of 0.5 s
BLOCKERS = """
    SELECT pid, coalesce(nullif(application_name, ''), 'unnamed'), state,
           extract(epoch FROM now() - coalesce(xact_start, query_start, backend_start))::int,
           left(regexp_replace(query, '\\s+', ' ', 'g'), 200)
      FROM pg_stat_activity
     WHERE pid = ANY (pg_blocking_pids(%s))
     ORDER BY xact_start NULLS LAST
     LIMIT 1
"""
_OF_KEY = """
      FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""
END_HOLDER = f"SELECT pg_terminate_backend(a.pid) {_OF_KEY}"
HOLDER = f"""
    SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), a.state,
           extract(epoch FROM now() - coalesce(a.xact_start, a.query_start, a.backend_start))::int,
           left(regexp_replace(a.query, '\\s+', ' ', 'g'), 200)
{_OF_KEY}"""  # noqa: S608  constants only


def lock_holder(connection: psycopg.Connection, key: int) -> str:
    """Name the session that holds this advisory lock."""
    return describe(connection.execute(HOLDER, [key]).fetchone())


def describe(session: tuple[object, ...] | None) -> str:
    """Return one line about a row of BLOCKERS or HOLDER."""
    if session is None:
        return "a session that ended before it could be named"
    pid, name, state, seconds, query = session
    if seconds is None:
        return f"pid {pid} ({name}, of a role whose sessions this role may not read)"
    return f"pid {pid} ({name}, {state}, transaction {seconds} s old): {query}"


class BlockerWatch:
    """Remembers the last session that blocked `connection`.

    It queries Postgres through `guard`, a connection in autocommit mode.
    """

    def __init__(self, guard: psycopg.Connection, connection: Connection) -> None:
        self._guard = guard
        self._pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="blocker-watch", daemon=True)
        self._blocker: tuple[object, ...] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def describe(self) -> str:
        """Return one line about the last blocker."""
        return describe(self._blocker)

    def _watch(self) -> None:
        try:
            while not self._stop.wait(LOOK_SECONDS):
                blocker = self._guard.execute(BLOCKERS, [self._pid]).fetchone()
                self._blocker = blocker or self._blocker
        except psycopg.Error:
            return  # the database is shutting down: the migration itself reports that
