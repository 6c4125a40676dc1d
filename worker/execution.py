"""One attempt at a job: its time limit, request id and metrics, and whether another may follow."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from procrastinate import JobContext, RetryDecision
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy
from procrastinate.worker import Worker

from api.observing import context as request_context
from api.storing.jobs import discard_superseded
from worker import metrics
from worker.registry import RULES, Rule, database_of

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 2.0  # then 4, 8, 16: half a minute in all, longer than a restart of Postgres
# A shutdown that interrupts a job is not the job's fault, so a job may be interrupted more often
# than it may fail. Chosen above the number of deploys in a day. The limit also ends a job that
# takes longer than every drain, or that uses so much memory that its worker is replaced each time.
# Interruptions count in `attempts` too: after four of them the first failure is final.
MOST_DELIVERIES = 20


class JobTimedOut(Exception):
    """The job took longer than its task allows."""


class JobInterruptedTooOften(Exception):
    """Shutdowns interrupted the job again and again."""


class Backoff(BaseRetryStrategy):
    """Exponential pauses with jitter; a job that a shutdown interrupted restarts at once."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=datetime.now(UTC))
        if is_last_attempt(job):
            return None
        pause = FIRST_PAUSE_SECONDS * 2**job.attempts * random.uniform(0.5, 1.5)  # noqa: S311  jitter
        return RetryDecision(retry_at=datetime.now(UTC) + timedelta(seconds=pause))


def is_last_attempt(job: Job) -> bool:
    """Tell whether the current attempt is the last of MAX_ATTEMPTS."""
    return job.attempts + 1 >= MAX_ATTEMPTS


async def run_job(call_next: Callable[[], Awaitable[Any]], context: JobContext, _: Worker) -> Any:
    """Run one attempt; procrastinate calls this around every job.

    Raises:
        JobTimedOut: after the limit of the job's task; the attempt is cancelled.
        JobInterruptedTooOften: after MOST_DELIVERIES interruptions.
    """
    job, rule = context.job, RULES[context.job.task_name]
    request_id = job.task_kwargs.get("request_id")
    request_context.request_id.set(str(request_id) if request_id else None)
    started, outcome = time.perf_counter(), "failed"
    metrics.RUNNING.labels(job.task_name).inc()
    try:
        result = await _within_limit(call_next, job, rule)
        outcome = "succeeded"
    except asyncio.CancelledError:
        outcome = "interrupted"
        if job.attempts + 1 < MOST_DELIVERIES:
            raise
        await _give_up(context, rule)
        raise JobInterruptedTooOften(f"{MOST_DELIVERIES} times") from None
    except Exception as error:
        outcome = "timed_out" if isinstance(error, JobTimedOut) else "failed"
        if is_last_attempt(job):
            await _give_up(context, rule)
        raise
    else:
        await _discard_superseded(context)
        return result
    finally:
        metrics.RUNNING.labels(job.task_name).dec()
        metrics.JOB_SECONDS.labels(job.task_name, outcome).observe(time.perf_counter() - started)


async def _within_limit(call_next: Callable[[], Awaitable[Any]], job: Job, rule: Rule) -> Any:
    try:
        async with asyncio.timeout(rule.limit_seconds) as limit:
            return await call_next()
    except TimeoutError:
        if not limit.expired():  # an error of the job itself, from a socket or a lock
            raise
        logger.error(  # noqa: TRY400  the place where the job was cancelled explains nothing
            "job over its time limit",
            extra={
                "action": "job_timed_out",
                "job_id": job.id,
                "task": job.task_name,
                "attempts": job.attempts + 1,
                "limit_s": rule.limit_seconds,
            },
        )
        raise JobTimedOut(f"longer than {rule.limit_seconds:g} s") from None


async def _discard_superseded(context: JobContext) -> None:
    """Delete failed runs of a task whose jobs replace each other; nobody needs to retry them."""
    job = context.job
    if job.queueing_lock and job.id is not None:
        async with database_of(context).transaction() as connection:
            await discard_superseded(connection, job.queueing_lock, job.id)


async def _give_up(context: JobContext, rule: Rule) -> None:
    if rule.on_failed:
        await rule.on_failed(context)
