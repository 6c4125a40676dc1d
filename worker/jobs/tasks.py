"""The task of the queue itself: delete finished jobs."""

from procrastinate import JobContext

from api.storing.jobs import queue
from worker.execution import Backoff
from worker.registry import HOUSEKEEPING, job

PRUNE_JOBS = "jobs.prune"
KEEP_FINISHED_JOBS_HOURS = 72  # chosen: a weekend; failed jobs stay until a person decides


@queue.periodic(cron="17 * * * *")
@job(
    PRUNE_JOBS,
    limit_seconds=300,
    retry=Backoff(),
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_JOBS,
)
async def prune_jobs(context: JobContext, timestamp: int) -> None:
    """Delete the jobs that finished more than KEEP_FINISHED_JOBS_HOURS ago."""
    await queue.job_manager.delete_old_jobs(
        nb_hours=KEEP_FINISHED_JOBS_HOURS, include_cancelled=True, include_aborted=True
    )
