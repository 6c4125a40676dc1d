"""The jobs of this release: names, schedules, limits. A job's queue is its name (see api/storing/jobs.py)."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from procrastinate import JobContext

from api.storing.database import Database
from api.storing.jobs import DELIVER_WEBHOOKS, WRITE_EXPORT, queue
from worker import exports, idempotency, users, webhooks
from worker.execution import RULES, Backoff, Rule

EXPIRE_EXPORTS = "exports.expire"
PRUNE_WEBHOOKS = "webhooks.prune"
PRUNE_JOBS = "jobs.prune"
PRUNE_IDEMPOTENCY_KEYS = "idempotency_keys.prune"
PRUNE_REFRESH_TOKENS = "refresh_tokens.prune"
KEEP_FINISHED_JOBS_HOURS = 72  # chosen: a weekend; failed jobs stay until a person decides
HOUSEKEEPING = 10  # above the 0 of all others: a long queue of exports must not keep the old ones from expiring


def job(
    name: str,
    *,
    limit_seconds: float,
    on_failed: Callable[[JobContext], Awaitable[None]] | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """Make a coroutine the task of this name; `limit_seconds` is for one attempt.

    It must not block the event loop: then no limit helps, and the process ends itself (worker/health.py).
    """
    RULES[name] = Rule(limit_seconds, on_failed)
    return queue.task(name=name, queue=name, pass_context=True, **options)


def _database(context: JobContext) -> Database:
    database: Database = context.additional_context["database"]
    return database


async def _mark_failed(context: JobContext) -> None:
    await exports.mark_failed(_database(context), UUID(str(context.job.task_kwargs["export_id"])))


# Measured: 20,000 rows take most of a second; ten minutes are millions.
@job(WRITE_EXPORT, limit_seconds=600, on_failed=_mark_failed, retry=Backoff())
async def write_export(
    context: JobContext, *, export_id: str, request_id: str | None = None
) -> None:
    keep = timedelta(hours=context.additional_context["export_keep_hours"])
    await exports.write_export(_database(context), UUID(export_id), keep)


# Of jobs that come by the clock, the next is the retry: they have none, and a queueing lock, so that one waits at most.
@queue.periodic(cron="*/5 * * * *")
@job(EXPIRE_EXPORTS, limit_seconds=120, priority=HOUSEKEEPING, queueing_lock=EXPIRE_EXPORTS)
async def expire_exports(context: JobContext, timestamp: int) -> None:
    await exports.expire_exports(_database(context))


# A minute of claiming (RUN_SECONDS) and the last attempts. What it leaves is due again by itself: worker/webhooks.py.
@job(DELIVER_WEBHOOKS, limit_seconds=120, retry=Backoff())
async def deliver_webhooks(context: JobContext, *, request_id: str | None = None) -> None:
    deliveries: webhooks.Deliveries = context.additional_context["deliveries"]
    await deliveries.run()


@queue.periodic(cron="37 3 * * *")
@job(PRUNE_WEBHOOKS, limit_seconds=300, priority=HOUSEKEEPING, queueing_lock=PRUNE_WEBHOOKS)
async def prune_webhooks(context: JobContext, timestamp: int) -> None:
    await webhooks.prune(_database(context))


@queue.periodic(cron="17 * * * *")
@job(PRUNE_JOBS, limit_seconds=300, priority=HOUSEKEEPING, queueing_lock=PRUNE_JOBS)
async def prune_jobs(context: JobContext, timestamp: int) -> None:
    await queue.job_manager.delete_old_jobs(
        nb_hours=KEEP_FINISHED_JOBS_HOURS, include_cancelled=True, include_aborted=True
    )


@queue.periodic(cron="27 * * * *")
@job(
    PRUNE_IDEMPOTENCY_KEYS,
    limit_seconds=300,
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_IDEMPOTENCY_KEYS,
)
async def prune_idempotency_keys(context: JobContext, timestamp: int) -> None:
    await idempotency.prune_keys(_database(context))


@queue.periodic(cron="37 * * * *")
@job(
    PRUNE_REFRESH_TOKENS,
    limit_seconds=300,
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_REFRESH_TOKENS,
)
async def prune_refresh_tokens(context: JobContext, timestamp: int) -> None:
    await users.prune_refresh_tokens(_database(context))


OWN_QUEUES = [
    *(WRITE_EXPORT, EXPIRE_EXPORTS, DELIVER_WEBHOOKS),
    *(PRUNE_WEBHOOKS, PRUNE_JOBS, PRUNE_IDEMPOTENCY_KEYS, PRUNE_REFRESH_TOKENS),
]
