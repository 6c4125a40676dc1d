"""The job queue, in Postgres. The API enqueues by name, inside the transaction that writes the rows.

A job's queue has its task's name: a worker fetches only what its release knows, so that the old slot's worker
never spoils a job of the new release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import procrastinate
from procrastinate.types import JSONValue
from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT
from sqlalchemy.ext.asyncio import AsyncConnection

from api.observing import context

SUSPECT_LOCK = "suspect"  # of jobs that lost their worker twice: one of them runs at a time (worker/stalled.py)

queue = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def enqueue(connection: AsyncConnection, task_name: str, **arguments: JSONValue) -> int:
    """Add a job that exists exactly if the transaction on `connection` is committed; return its id."""
    raw = (await connection.get_raw_connection()).driver_connection
    task = queue.configure_task(task_name, queue=task_name, connection=raw)
    return await task.defer_async(request_id=context.request_id.get(), **arguments)


@dataclass(frozen=True)
class QueueState:
    """How many jobs of a queue wait, are scheduled for later, run, or failed for good, and the oldest one's age."""

    queue: str
    waiting: int = 0
    scheduled: int = 0
    running: int = 0
    failed: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True)
class FailedJob:
    """A job that used up its attempts and waits for a person."""

    id: int
    task_name: str
    attempts: int
    failed_at: datetime | None
    request_id: str | None
    arguments: dict[str, Any]


class JobNotFailed(Exception):
    """The job is not there, or is not one that waits for a person."""


# Ids grow with time, so that the lowest is the oldest; its age is that of the request, whatever became of it since.
_QUEUES = text("""
    SELECT found.queue_name AS queue, waiting, scheduled, running, failed,
           coalesce(extract(epoch FROM now() - (
               SELECT min(at) FROM procrastinate_events WHERE job_id = oldest AND type = 'deferred'
           )), 0)::float AS oldest_seconds
      FROM (
        SELECT queue_name,
               count(*) FILTER (WHERE status = 'todo' AND is_due) AS waiting,
               count(*) FILTER (WHERE status = 'todo' AND NOT is_due) AS scheduled,
               count(*) FILTER (WHERE status = 'doing') AS running,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               min(id) FILTER (WHERE status = 'todo' AND is_due) AS oldest
          FROM (  -- in two parts, each with an index: most jobs are finished
            SELECT queue_name, id, status, scheduled_at IS NULL OR scheduled_at <= now() AS is_due
              FROM procrastinate_jobs WHERE status IN ('todo', 'doing')
             UNION ALL
            SELECT queue_name, id, status, true FROM procrastinate_jobs WHERE status = 'failed'
          ) job
         GROUP BY queue_name
      ) found
     ORDER BY queue_name
""")
_CHOSEN = "job.status = 'failed' AND (:ids IS NULL OR job.id = ANY(:ids)) AND (:task IS NULL OR job.task_name = :task)"
_CHOICE = (bindparam("ids", type_=ARRAY(BIGINT)), bindparam("task", type_=TEXT))
_FAILED = text(f"""
    SELECT id, task_name, attempts, args->>'request_id' AS request_id, args - 'request_id' AS arguments,
           (SELECT max(at) FROM procrastinate_events WHERE job_id = job.id AND type = 'failed') AS failed_at
      FROM procrastinate_jobs job
     WHERE {_CHOSEN}
     ORDER BY id DESC
     LIMIT :most
""").bindparams(*_CHOICE)
# With all its attempts, as if it were new. Of several that exclude each other in the queue the newest is taken, and
# none where one waits already.
_RETRY = text(f"""
    UPDATE procrastinate_jobs job
       SET status = 'todo', attempts = 0, scheduled_at = NULL, worker_id = NULL, abort_requested = false,
           lock = nullif(lock, '{SUSPECT_LOCK}')
     WHERE {_CHOSEN}
       AND NOT EXISTS (
           SELECT FROM procrastinate_jobs other
            WHERE other.queueing_lock = job.queueing_lock
              AND (other.status = 'todo' OR other.status = 'failed' AND other.id > job.id)
       )
    RETURNING id
""").bindparams(*_CHOICE)
_DISCARD = text(f"DELETE FROM procrastinate_jobs job WHERE {_CHOSEN} RETURNING id").bindparams(
    *_CHOICE
)
_STATES = text("SELECT id, status::text FROM procrastinate_jobs WHERE id = ANY(:ids)").bindparams(
    _CHOICE[0]
)


async def read_queues(connection: AsyncConnection) -> list[QueueState]:
    """Return the state of each queue that has a job which is not finished."""
    return [QueueState(**row) for row in (await connection.execute(_QUEUES)).mappings()]


async def list_failed(
    connection: AsyncConnection, task: str | None = None, most: int = 100
) -> list[FailedJob]:
    """Return the failed jobs, the newest first, at most `most`."""
    rows = (await connection.execute(_FAILED, {"ids": None, "task": task, "most": most})).mappings()
    return [FailedJob(**row) for row in rows]


async def retry_failed(
    connection: AsyncConnection, ids: Sequence[int] | None = None, task: str | None = None
) -> list[int]:
    """Give failed jobs back to the workers, with all attempts: those named, or all of a task, or all.

    Return the ids of those that are back. The others are left as they were: one like them waits already.

    Raises:
        JobNotFailed: where one that is named is not a failed job; then nothing is changed.
        sqlalchemy.exc.IntegrityError: where one like it is enqueued at the same moment; the transaction is over.
    """
    return await _change(connection, _RETRY, ids, task)


async def discard_failed(
    connection: AsyncConnection, ids: Sequence[int] | None = None, task: str | None = None
) -> list[int]:
    """Delete failed jobs: those named, or all of a task, or all; return their ids.

    Raises:
        JobNotFailed: where one that is named is not a failed job; then nothing is changed.
    """
    return await _change(connection, _DISCARD, ids, task)


async def _change(
    connection: AsyncConnection, statement: TextClause, ids: Sequence[int] | None, task: str | None
) -> list[int]:
    if ids is not None:
        found = {
            row.id: row.status for row in await connection.execute(_STATES, {"ids": list(ids)})
        }
        wrong = [
            f"job {one} is {found.get(one, 'not there')}"
            for one in ids
            if found.get(one) != "failed"
        ]
        if wrong:
            raise JobNotFailed(", ".join(wrong))
    parameters = {"ids": None if ids is None else list(ids), "task": task}
    return sorted((await connection.execute(statement, parameters)).scalars())
