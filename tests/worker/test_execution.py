"""Tests an attempt at a job: its time limit, the last attempt, and the failure report."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from procrastinate import App, JobContext
from procrastinate.jobs import Job
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import Worker
from prometheus_client import REGISTRY

from api.storing.jobs import queue
from api.webhooks.tasks import DELIVER_WEBHOOKS
from worker import execution, registry
from worker.execution import (
    MAX_ATTEMPTS,
    MOST_DELIVERIES,
    JobInterruptedTooOften,
    JobTimedOut,
)
from worker.loop import OWN_QUEUES
from worker.registry import Rule
from worker.webhooks import deliveries

LIMIT_SECONDS = 0.05


@pytest.fixture
def given_up_ids(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return a list that receives the id of each job without a further attempt."""
    given_up: list[int | None] = []

    async def give_up(context: JobContext) -> None:
        given_up.append(context.job.id)

    monkeypatch.setitem(registry.RULES, "t", Rule(LIMIT_SECONDS, give_up))
    return given_up


def counted(outcome: str) -> float:
    return (
        REGISTRY.get_sample_value(
            "slipway_job_duration_seconds_count", {"task": "t", "outcome": outcome}
        )
        or 0
    )


def attempt(work: Callable[[], Awaitable[Any]], attempts: int = 0) -> Any:
    job = Job(
        id=7,
        queue="t",
        lock=None,
        queueing_lock=None,
        task_name="t",
        task_kwargs={},
        attempts=attempts,
    )
    app = App(connector=InMemoryConnector())
    context = JobContext(app=app, job=job, start_timestamp=time.time(), abort_reason=lambda: None)
    return asyncio.run(execution.run_job(work, context, Worker(app)))


async def succeed() -> str:
    return "done"


async def take_long() -> None:
    await asyncio.sleep(60)


async def time_out_itself() -> None:
    raise TimeoutError("a socket's")


async def be_interrupted() -> None:
    raise asyncio.CancelledError


def test_every_task_states_its_limit() -> None:
    assert set(registry.RULES) == set(OWN_QUEUES)
    assert all(registry.RULES[name].limit_seconds > 0 for name in OWN_QUEUES)


def test_every_task_is_tried_again_after_a_failure() -> None:
    assert [name for name in OWN_QUEUES if queue.tasks[name].retry_strategy is None] == []


def test_a_run_of_webhooks_ends_by_itself_before_its_limit() -> None:
    assert (
        registry.RULES[DELIVER_WEBHOOKS].limit_seconds
        > deliveries.RUN_SECONDS + deliveries.LEASE_SECONDS
    )


def test_a_job_that_succeeds_gives_its_result(given_up_ids: list[int | None]) -> None:
    assert attempt(succeed, MAX_ATTEMPTS - 1) == "done"
    assert given_up_ids == []


def test_a_job_over_its_limit_is_cancelled_and_that_is_logged(
    given_up_ids: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(JobTimedOut, match=r"longer than 0\.05 s"):
        attempt(take_long)
    (record,) = caplog.records
    assert (record.__dict__["action"], record.__dict__["job_id"]) == ("job_timed_out", 7)
    assert given_up_ids == []


def test_a_time_out_of_the_job_itself_is_not_taken_for_the_limit(
    given_up_ids: list[int | None],
) -> None:
    with pytest.raises(TimeoutError, match="a socket's"):
        attempt(time_out_itself)


@pytest.mark.parametrize("work", [take_long, time_out_itself])
def test_the_last_attempt_is_told_about(
    given_up_ids: list[int | None], work: Callable[[], Awaitable[Any]]
) -> None:
    for attempts in range(MAX_ATTEMPTS):
        assert given_up_ids == []
        with pytest.raises((TimeoutError, JobTimedOut)):
            attempt(work, attempts)
    assert given_up_ids == [7]


@pytest.mark.usefixtures("given_up_ids")
@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (succeed, "succeeded"),
        (take_long, "timed_out"),
        (time_out_itself, "failed"),
        (be_interrupted, "interrupted"),
    ],
)
def test_each_attempt_is_measured_with_its_outcome(
    work: Callable[[], Awaitable[Any]], outcome: str
) -> None:
    before = counted(outcome)
    with suppress(TimeoutError, JobTimedOut, asyncio.CancelledError):
        attempt(work)
    assert counted(outcome) == before + 1
    assert REGISTRY.get_sample_value("slipway_jobs_running", {"task": "t"}) == 0


def test_an_interruption_is_no_failure_until_there_were_too_many(
    given_up_ids: list[int | None],
) -> None:
    with pytest.raises(asyncio.CancelledError):
        attempt(be_interrupted, MOST_DELIVERIES - 2)
    assert given_up_ids == []
    with pytest.raises(JobInterruptedTooOften):
        attempt(be_interrupted, MOST_DELIVERIES - 1)
    assert given_up_ids == [7]
