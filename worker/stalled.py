"""Brings back the jobs of workers that died without a word, and sets those aside that killed too many."""

import logging

from psycopg_pool import AsyncConnectionPool

from worker.tasks import MAX_ATTEMPTS

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
STALLED_SECONDS = 20.0  # three heartbeats missed; with LOOK and POLL below it stays under the promised 30 s
LOOK_SECONDS = 3.0
POLL_SECONDS = 5.0  # a job brought back sends no notification, it is found by polling

# One statement, so that any number of workers may run it at once: it locks only jobs that are still stalled,
# and skips what another worker is just bringing back. procrastinate's own way knows no limit of attempts:
# a job that kills its worker would do so for ever.
RESCUE = f"""
    WITH stalled AS MATERIALIZED (
        SELECT job.id, job.task_name, job.attempts
          FROM procrastinate_jobs job
         WHERE job.status = 'doing'
           AND NOT EXISTS (
               SELECT FROM procrastinate_workers worker
                WHERE worker.id = job.worker_id
                  AND worker.last_heartbeat >= now() - make_interval(secs => {STALLED_SECONDS})
           )
           FOR UPDATE SKIP LOCKED
    )
    SELECT id, task_name, attempts,
           CASE WHEN attempts + 1 >= {MAX_ATTEMPTS}
                THEN procrastinate_finish_job_v1(id, 'failed', false)::text
                ELSE procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL)::text
           END
      FROM stalled
"""  # noqa: S608  numbers of this module only


async def rescue_stalled(pool: AsyncConnectionPool) -> None:
    async with pool.connection() as connection:
        rows = await (await connection.execute(RESCUE)).fetchall()
    for job_id, task_name, attempts, _ in rows:
        is_over = attempts + 1 >= MAX_ATTEMPTS
        logger.log(
            logging.ERROR if is_over else logging.WARNING,
            "stalled job set aside" if is_over else "stalled job brought back",
            extra={
                "action": "job_set_aside" if is_over else "job_rescued",
                "job_id": job_id,
                "task": task_name,
                "attempts": attempts + 1,
            },
        )
