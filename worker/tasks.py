"""The jobs of this release: names, schedules, retries. A job's queue is its name (see api/jobs.py)."""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from procrastinate import JobContext, RetryDecision
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy

from api import context as request_context
from api.database import Database
from api.jobs import DELIVER_WEBHOOKS, WRITE_EXPORT, queue
from worker import exports, idempotency, users, webhooks

logger = logging.getLogger(__name__)

EXPIRE_EXPORTS = "exports.expire"
PRUNE_WEBHOOKS = "webhooks.prune"
PRUNE_JOBS = "jobs.prune"
PRUNE_IDEMPOTENCY_KEYS = "idempotency_keys.prune"
PRUNE_REFRESH_TOKENS = "refresh_tokens.prune"
MAX_ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 2.0  # then 4, 8, 16: half a minute in all, longer than a restart of Postgres
KEEP_FINISHED_JOBS_HOURS = 72  # chosen: a weekend; failed jobs stay until a person decides


class Backoff(BaseRetryStrategy):
    """Exponential, with jitter; a job that a shutdown interrupted starts again at once."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(UTC))
        if is_last_attempt(job):
            return None
        pause = FIRST_PAUSE_SECONDS * 2**job.attempts * random.uniform(0.5, 1.5)  # noqa: S311  jitter
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=pause))


def is_last_attempt(job: Job) -> bool:
    return job.attempts + 1 >= MAX_ATTEMPTS


@queue.task(name=WRITE_EXPORT, queue=WRITE_EXPORT, retry=Backoff(), pass_context=True)
async def write_export(context: JobContext, *, export_id: str, request_id: str | None = None) -> None:
    request_context.request_id.set(request_id)
    database: Database = context.additional_context["database"]
    keep = timedelta(hours=context.additional_context["export_keep_hours"])
    try:
        await exports.write_export(database, UUID(export_id), keep)
    except Exception:
        if is_last_attempt(context.job):
            await exports.mark_failed(database, UUID(export_id))
        raise


@queue.periodic(cron="*/5 * * * *")
@queue.task(name=EXPIRE_EXPORTS, queue=EXPIRE_EXPORTS, queueing_lock=EXPIRE_EXPORTS, pass_context=True)
async def expire_exports(context: JobContext, timestamp: int) -> None:
    await exports.expire_exports(context.additional_context["database"])


@queue.task(name=DELIVER_WEBHOOKS, queue=DELIVER_WEBHOOKS, retry=Backoff(), pass_context=True)
async def deliver_webhooks(context: JobContext, *, request_id: str | None = None) -> None:
    deliveries: webhooks.Deliveries = context.additional_context["deliveries"]
    await deliveries.run()


@queue.periodic(cron="37 3 * * *")
@queue.task(name=PRUNE_WEBHOOKS, queue=PRUNE_WEBHOOKS, queueing_lock=PRUNE_WEBHOOKS, pass_context=True)
async def prune_webhooks(context: JobContext, timestamp: int) -> None:
    await webhooks.prune(context.additional_context["database"])


@queue.periodic(cron="17 * * * *")
@queue.task(name=PRUNE_JOBS, queue=PRUNE_JOBS, queueing_lock=PRUNE_JOBS)
async def prune_jobs(timestamp: int) -> None:
    await queue.job_manager.delete_old_jobs(nb_hours=KEEP_FINISHED_JOBS_HOURS)


@queue.periodic(cron="27 * * * *")
@queue.task(
    name=PRUNE_IDEMPOTENCY_KEYS, queue=PRUNE_IDEMPOTENCY_KEYS, queueing_lock=PRUNE_IDEMPOTENCY_KEYS, pass_context=True
)
async def prune_idempotency_keys(context: JobContext, timestamp: int) -> None:
    await idempotency.prune_keys(context.additional_context["database"])


@queue.periodic(cron="37 * * * *")
@queue.task(
    name=PRUNE_REFRESH_TOKENS, queue=PRUNE_REFRESH_TOKENS, queueing_lock=PRUNE_REFRESH_TOKENS, pass_context=True
)
async def prune_refresh_tokens(context: JobContext, timestamp: int) -> None:
    await users.prune_refresh_tokens(context.additional_context["database"])


OWN_QUEUES = [
    *(WRITE_EXPORT, EXPIRE_EXPORTS, DELIVER_WEBHOOKS),
    *(PRUNE_WEBHOOKS, PRUNE_JOBS, PRUNE_IDEMPOTENCY_KEYS, PRUNE_REFRESH_TOKENS),
]
