"""The job queue, in Postgres. The API enqueues by name, in the transaction that writes the rows.

A job's queue has its task's name. A worker fetches only from the queues of its own release, so the
old slot's worker never fails on a task that only the new release has.
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

# The lock of jobs that lost their worker twice: one of them runs at a time (worker/stalled.py).
SUSPECT_LOCK = "suspect"

queue = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def enqueue(connection: AsyncConnection, task_name: str, **arguments: JSONValue) -> int:
    """Add a job in the transaction of `connection`, so that both are committed; return its id."""
    raw = (await connection.get_raw_connection()).driver_connection
    task = queue.configure_task(task_name, queue=task_name, connection=raw)
    return await task.defer_async(request_id=context.request_id.get(), **arguments)


@dataclass(frozen=True)
class QueueState:
    """The number of jobs of a queue in each state, and the age of the oldest job that waits."""

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
    """The job does not exist or has not failed."""


# Ids grow with time, so the lowest id is the oldest job. Its age counts from when it was enqueued.
_QUEUES = text("""
    SELECT counted.queue_name AS queue, waiting, scheduled, running, failed,
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
          FROM (  -- two parts, each with an index of its own: most jobs are finished
            SELECT queue_name, id, status, scheduled_at IS NULL OR scheduled_at <= now() AS is_due
              FROM procrastinate_jobs WHERE status IN ('todo', 'doing')
             UNION ALL
            SELECT queue_name, id, status, true FROM procrastinate_jobs WHERE status = 'failed'
          ) job
         GROUP BY queue_name
      ) counted
     ORDER BY queue_name
""")
_CHOSEN = (
    "job.status = 'failed' AND (:ids IS NULL OR job.id = ANY(:ids))"
    " AND (:task IS NULL OR job.task_name = :task)"
)
_CHOICE = (bindparam("ids", type_=ARRAY(BIGINT)), bindparam("task", type_=TEXT))
_FAILED = text(f"""
    SELECT id, task_name, attempts,
           args->>'request_id' AS request_id, args - 'request_id' AS arguments,
           (
               SELECT max(at) FROM procrastinate_events
                WHERE job_id = job.id AND type = 'failed'
           ) AS failed_at
      FROM procrastinate_jobs job
     WHERE {_CHOSEN}
     ORDER BY id DESC
     LIMIT :most
""").bindparams(*_CHOICE)  # noqa: S608  constants only
# A retried job has all its attempts again. Of several jobs with the same queueing lock the newest
# is retried, and none of them if such a job waits already.
_RETRY = text(f"""
    UPDATE procrastinate_jobs job
       SET status = 'todo', attempts = 0, scheduled_at = NULL, worker_id = NULL,
           abort_requested = false, lock = nullif(lock, '{SUSPECT_LOCK}')
     WHERE {_CHOSEN}
       AND NOT EXISTS (
           SELECT FROM procrastinate_jobs other
            WHERE other.queueing_lock = job.queueing_lock
              AND (other.status = 'todo' OR other.status = 'failed' AND other.id > job.id)
       )
    RETURNING id
""").bindparams(*_CHOICE)  # noqa: S608  constants only
_DISCARD = text(f"""
    DELETE FROM procrastinate_jobs job WHERE {_CHOSEN} RETURNING id
""").bindparams(*_CHOICE)  # noqa: S608  constants only
_SUPERSEDED = text("""
    DELETE FROM procrastinate_jobs
     WHERE status = 'failed' AND queueing_lock = :queueing_lock AND id < :job_id
""")
_STATES = text("SELECT id, status::text FROM procrastinate_jobs WHERE id = ANY(:ids)").bindparams(
    _CHOICE[0]
)


async def read_queues(connection: AsyncConnection) -> list[QueueState]:
    """Return the state of each queue that has an unfinished job."""
    return [QueueState(**row) for row in (await connection.execute(_QUEUES)).mappings()]


async def list_failed(
    connection: AsyncConnection, task: str | None = None, most: int = 100
) -> list[FailedJob]:
    """Return at most `most` failed jobs, newest first."""
    rows = (await connection.execute(_FAILED, {"ids": None, "task": task, "most": most})).mappings()
    return [FailedJob(**row) for row in rows]


async def retry_failed(
    connection: AsyncConnection, ids: Sequence[int] | None = None, task: str | None = None
) -> list[int]:
    """Return failed jobs to the queue: the jobs in `ids`, or all of a task, or all.

    Return the ids of the jobs that are in the queue again. The others do not change: a job with the
    same queueing lock waits already.

    Raises:
        JobNotFailed: if a job in `ids` has not failed; nothing changes.
        sqlalchemy.exc.IntegrityError: if a job with the same queueing lock is enqueued at the same
            moment; the transaction is aborted.
    """
    return await _change(connection, _RETRY, ids, task)


async def discard_failed(
    connection: AsyncConnection, ids: Sequence[int] | None = None, task: str | None = None
) -> list[int]:
    """Delete failed jobs: the jobs in `ids`, or all of a task, or all; return their ids.

    Raises:
        JobNotFailed: if a job in `ids` has not failed; nothing changes.
    """
    return await _change(connection, _DISCARD, ids, task)


async def discard_superseded(connection: AsyncConnection, queueing_lock: str, job_id: int) -> None:
    """Delete the failed jobs with this queueing lock that are older than a job that succeeded."""
    await connection.execute(_SUPERSEDED, {"queueing_lock": queueing_lock, "job_id": job_id})


async def _change(
    connection: AsyncConnection, statement: TextClause, ids: Sequence[int] | None, task: str | None
) -> list[int]:
    if ids is not None:
        rows = await connection.execute(_STATES, {"ids": list(ids)})
        states = {row.id: row.status for row in rows}
        not_failed = [
            f"job {job_id} is {states.get(job_id, 'unknown')}"
            for job_id in ids
            if states.get(job_id) != "failed"
        ]
        if not_failed:
            raise JobNotFailed(", ".join(not_failed))
    parameters = {"ids": None if ids is None else list(ids), "task": task}
    return sorted((await connection.execute(statement, parameters)).scalars())
