"""Returns the jobs of dead workers to the queue, and fails jobs that killed too many workers."""

import logging

from psycopg_pool import AsyncConnectionPool

from api.storing.jobs import SUSPECT_LOCK
from worker.execution import MAX_ATTEMPTS

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
# Three missed heartbeats. With LOOK_SECONDS and POLL_SECONDS it stays below the promised 30 s.
STALLED_SECONDS = 20.0
LOOK_SECONDS = 3.0
POLL_SECONDS = 5.0  # a job that returns to the queue sends no notification: polling finds it

# One statement, so that any number of workers may run it at the same time: it locks only jobs that
# are still stalled, and skips those that another worker is returning. procrastinate's own function
# has no limit of attempts: a job that kills its worker would do so for ever.
# (1) A job is dropped if a job with the same queueing lock waits, or is stalled with a higher id.
#     Postgres refuses two waiting jobs with the same lock: the whole statement would fail.
# (2) A job that stalls for the second time is suspected of killing its worker. Suspects run one at
#     a time: otherwise jobs that run beside the culprit would lose attempts too. A job of a queue
#     that this worker does not take, as after a rollback, is no suspect: the others would wait
#     behind it for ever.
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
                    CASE WHEN attempts > 0 AND queue_name = ANY(%(queues)s)
                         THEN coalesce(lock, '{SUSPECT_LOCK}') END
                )::text
           END
      FROM judged
"""  # noqa: S608  numbers of this module only
# The suspects that (2) does not change: jobs that only the previous release runs, and that it
# suspected before this release replaced it.
RELEASE = f"""
    UPDATE procrastinate_jobs SET lock = NULL
     WHERE status = 'todo' AND lock = '{SUSPECT_LOCK}' AND queue_name <> ALL(%(queues)s)
"""  # noqa: S608  a constant
MESSAGES = {
    "job_set_aside": (logging.ERROR, "stalled job failed for good"),
    "job_dropped": (logging.WARNING, "stalled job dropped, a job like it waits"),
    "job_rescued": (logging.WARNING, "stalled job returned to the queue"),
}


async def rescue_stalled(pool: AsyncConnectionPool, queues: list[str]) -> None:
    """Return each job whose worker died to the queue, or fail it; `queues` are this worker's."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(RESCUE, {"queues": queues})).fetchall()
    for job_id, task_name, attempts, verdict, _ in rows:
        level, message = MESSAGES[verdict]
        extra = {"action": verdict, "job_id": job_id, "task": task_name, "attempts": attempts + 1}
        logger.log(level, message, extra=extra)


async def release_foreign(pool: AsyncConnectionPool, queues: list[str]) -> None:
    """Take the suspects' lock from jobs of queues other than `queues`, this worker's own."""
    async with pool.connection() as connection:
        await connection.execute(RELEASE, {"queues": queues})
