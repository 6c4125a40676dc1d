"""Brings back the jobs of workers that died without a word, and sets those aside that killed too many."""

import logging

from psycopg_pool import AsyncConnectionPool

from api.storing.jobs import SUSPECT_LOCK
from worker.execution import MAX_ATTEMPTS

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
STALLED_SECONDS = (
    20.0  # three heartbeats missed; with LOOK and POLL below it stays under the promised 30 s
)
LOOK_SECONDS = 3.0
POLL_SECONDS = 5.0  # a job brought back sends no notification, it is found by polling

# One statement, so that any number of workers may run it at once: it locks only jobs that are still stalled,
# and skips what another worker is just bringing back. procrastinate's own way knows no limit of attempts:
# a job that kills its worker would do so for ever.
# (1) A job whose like waits, or is stalled with it, is dropped: two cannot wait, and the whole statement would fail.
# (2) From the second time on a job is suspected of killing its worker, and suspects run one at a time: else those that
#     were in hand beside the culprit would lose their attempts with it. Not one of a queue that nobody here takes,
#     after a rollback: the others would wait behind it for ever.
RESCUE = f"""
    WITH stalled AS MATERIALIZED (
        SELECT job.id, job.task_name, job.queue_name, job.attempts, job.lock, job.queueing_lock
          FROM procrastinate_jobs job
         WHERE job.status = 'doing'
           AND NOT EXISTS (
               SELECT FROM procrastinate_workers worker
                WHERE worker.id = job.worker_id
                  AND worker.last_heartbeat >= now() - make_interval(secs => {STALLED_SECONDS})
           )
           FOR UPDATE SKIP LOCKED
    ), judged AS MATERIALIZED (
        SELECT *,
               CASE WHEN attempts + 1 >= {MAX_ATTEMPTS} THEN 'job_set_aside'
                    WHEN EXISTS (  -- (1)
                        SELECT FROM procrastinate_jobs other
                         WHERE other.queueing_lock = stalled.queueing_lock AND other.status = 'todo'
                    ) OR EXISTS (
                        SELECT FROM stalled other
                         WHERE other.queueing_lock = stalled.queueing_lock AND other.id > stalled.id
                    ) THEN 'job_dropped'
                    ELSE 'job_rescued'
               END AS verdict
          FROM stalled
    )
    SELECT id, task_name, attempts, verdict,
           CASE verdict
                WHEN 'job_set_aside' THEN procrastinate_finish_job_v1(id, 'failed', false)::text
                WHEN 'job_dropped' THEN procrastinate_finish_job_v1(id, 'aborted', true)::text
                ELSE procrastinate_retry_job_v2(  -- (2)
                    id, now(), NULL, NULL,
                    CASE WHEN attempts > 0 AND queue_name = ANY(%(queues)s) THEN coalesce(lock, '{SUSPECT_LOCK}') END
                )::text
           END
      FROM judged
"""
# What (2) does not reach: those that the other release had suspected before this one took its place.
RELEASE = f"""
    UPDATE procrastinate_jobs SET lock = NULL
     WHERE status = 'todo' AND lock = '{SUSPECT_LOCK}' AND queue_name <> ALL(%(queues)s)
"""
MESSAGES = {
    "job_set_aside": (logging.ERROR, "stalled job set aside"),
    "job_dropped": (logging.WARNING, "stalled job dropped, its like waits"),
    "job_rescued": (logging.WARNING, "stalled job brought back"),
}


async def rescue_stalled(pool: AsyncConnectionPool, queues: list[str]) -> None:
    """Give each job whose worker is gone back, or set it aside; `queues` are those that this worker takes."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(RESCUE, {"queues": queues})).fetchall()
    for job_id, task_name, attempts, verdict, _ in rows:
        level, message = MESSAGES[verdict]
        extra = {"action": verdict, "job_id": job_id, "task": task_name, "attempts": attempts + 1}
        logger.log(level, message, extra=extra)


async def release_foreign(pool: AsyncConnectionPool, queues: list[str]) -> None:
    """Let no suspect wait for a job that this worker never takes."""
    async with pool.connection() as connection:
        await connection.execute(RELEASE, {"queues": queues})
