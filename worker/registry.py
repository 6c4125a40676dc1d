"""The tasks of this release, and the rule of each task for its jobs.

A domain's tasks are in `worker/<domain>/tasks.py`. A task's queue has the task's name
(api/storing/jobs.py), so this worker takes the queues of the tasks that are registered here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from procrastinate import JobContext

import worker
from api.configuring.domains import import_from_domains
from api.storing.database import Database
from api.storing.jobs import queue

# A priority above the 0 of all other tasks: many new exports must not delay the expiry of old ones.
HOUSEKEEPING = 10


@dataclass(frozen=True)
class Rule:
    """The time limit of a task's jobs, and the action after a job has failed.

    Args:
        limit_seconds: how long one attempt may take.
        on_failed: what to do after the last attempt failed.
    """

    limit_seconds: float
    on_failed: Callable[[JobContext], Awaitable[None]] | None = None


RULES: dict[str, Rule] = {}


def job(
    name: str,
    *,
    limit_seconds: float,
    on_failed: Callable[[JobContext], Awaitable[None]] | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """Make a coroutine the task of this name; `options` are those of procrastinate's `App.task`.

    The coroutine must not block the event loop. A blocked loop cannot enforce a limit, and its
    process ends itself after STUCK_SECONDS (worker/health.py).
    """
    RULES[name] = Rule(limit_seconds, on_failed)
    return queue.task(name=name, queue=name, pass_context=True, **options)


def load_tasks() -> list[str]:
    """Import the tasks of every domain; return the queues that this release takes, in order."""
    import_from_domains(worker, "tasks")
    return own_queues()


def own_queues() -> list[str]:
    """Return the queue of every task that is registered, in alphabetical order."""
    return sorted(RULES)


def database_of(context: JobContext) -> Database:
    """Return the database of the process that runs this job."""
    database: Database = context.additional_context["database"]
    return database
