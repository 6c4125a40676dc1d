"""The worker's main loop: wait for Postgres, run jobs, reconnect to Postgres, drain and stop."""

import asyncio
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import procrastinate.exceptions
import psycopg
import sqlalchemy.exc
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool

from api.configuring.container import memory_limit_bytes, used_bytes
from api.configuring.settings import WorkerSettings
from api.configuring.timeouts import STATEMENT_SECONDS, WORKER_DRAIN_SECONDS
from api.observing.sentry import flush_sentry, start_sentry
from api.storing.database import Database, connect_arguments, session_options
from api.storing.jobs import queue
from api.webhooks.targets import Rules
from worker import metrics
from worker.execution import run_job
from worker.health import BEAT_SECONDS, STUCK_SECONDS, heartbeat_file
from worker.registry import load_tasks
from worker.stalled import (
    HEARTBEAT_SECONDS,
    LOOK_SECONDS,
    POLL_SECONDS,
    STALLED_SECONDS,
    release_foreign,
    rescue_stalled,
)
from worker.webhooks import deliveries
from worker.webhooks.circuits import Circuits
from worker.webhooks.sending import Sender

logger = logging.getLogger(__name__)

# At import, before the fork: the processes share the memory of the modules that are loaded here.
OWN_QUEUES = load_tasks()

QUEUE_CONNECTIONS = 3  # fetch, finish, heartbeat; listening takes one more, jobs take one each
METRICS_CONNECTIONS = 1  # so that the queue is counted even while every job holds a connection
# The part of the container's memory for all processes together. If all memory is used, the kernel
# kills a process with its jobs.
MEMORY_SHARE = 0.8
# A part of a process's share of memory. A process that is above this part while idle would be
# replaced after a few jobs.
IDLE_SHARE = 0.9
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 5.0
# A plan that Postgres made and kept while the queue was short takes minutes for each job of a queue
# that has grown to 100,000 jobs: it compares each waiting job with every other one.
QUEUE_OPTIONS = (
    session_options({"statement_timeout": STATEMENT_SECONDS})
    + " -c plan_cache_mode=force_custom_plan"
)
DATABASE_ERRORS = (
    psycopg.Error,
    procrastinate.exceptions.ConnectorException,
    sqlalchemy.exc.SQLAlchemyError,
)


class WorkerLoop:
    """A process of the worker; `process` is its number in the container, from 0."""

    def __init__(self, settings: WorkerSettings, process: int) -> None:
        self.settings = settings
        self.heartbeat_file = heartbeat_file(process)
        self.database = Database(
            settings, pool_size=settings.worker_concurrency + METRICS_CONNECTIONS
        )
        self.process = process
        self.memory_bytes = share_bytes(memory_limit_bytes(), settings.worker_processes)
        self.worker: Worker | None = None
        self.stopping = asyncio.Event()
        # A drain to save memory is not a signal: the first signal after it still lets the jobs end.
        self.is_signalled = False
        sender = Sender(Rules.of(settings), Circuits())
        self.deliveries = deliveries.Deliveries(self.database, sender, self.stopping)

    async def run(self) -> None:
        """Run jobs until a signal; return when the drain is over."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal, number)
        start_sentry(self.settings)
        collector = metrics.serve(self.process)
        tasks = [
            asyncio.create_task(every(BEAT_SECONDS, self._beat), name="beat"),
            asyncio.create_task(
                every(metrics.LOOK_SECONDS, lambda: collector.look(self.database, OWN_QUEUES)),
                name="look",
            ),
        ]
        self._check_memory()
        logger.info("worker started", extra={"action": "worker_started", "queues": OWN_QUEUES})
        if self.settings.webhook_allowed_networks:
            logger.warning(
                "webhooks may be sent to networks that are not public",
                extra={
                    "action": "webhook_networks_opened",
                    "networks": self.settings.webhook_allowed_networks,
                },
            )
        try:
            while not self.stopping.is_set():
                if await self._wait_for_database():
                    await self._run_once()
                # Without this pause the loop would spin if Postgres answers and then refuses.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), FIRST_WAIT_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await self.database.close()
            faulthandler.cancel_dump_traceback_later()
            logger.info("worker stopped", extra={"action": "worker_stopped"})
            flush_sentry()

    async def _beat(self) -> None:
        self.heartbeat_file.touch()
        # The next beat restarts this timer; a blocked loop cannot. Then C code, which needs no
        # interpreter lock, prints where each thread is and ends the process. The engine or the
        # supervisor starts another process.
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        used = used_bytes()
        if self.memory_bytes and used > self.memory_bytes and not self.stopping.is_set():
            logger.warning(
                "over its share of memory, another process replaces it",
                extra={
                    "action": "worker_over_memory",
                    "bytes": used,
                    "share_bytes": self.memory_bytes,
                },
            )
            self._drain("memory")

    def _check_memory(self) -> None:
        """Switch the replacement off if an idle process nearly fills its share already.

        The process that replaced it would be as large.
        """
        used = used_bytes()
        if self.memory_bytes and used > self.memory_bytes * IDLE_SHARE:
            logger.warning(
                "too little memory for so many processes",
                extra={
                    "action": "worker_memory_small",
                    "bytes": used,
                    "share_bytes": self.memory_bytes,
                },
            )
            self.memory_bytes = None

    def _signal(self, number: signal.Signals) -> None:
        if self.is_signalled:
            # The first process of a container has no default action for a signal.
            # Another worker returns the running jobs to the queue.
            logger.warning("second signal, stopping now", extra={"action": "worker_killed"})
            logging.shutdown()
            os._exit(128 + number)
        self.is_signalled = True
        if not self.stopping.is_set():
            self._drain(number.name)

    def _drain(self, reason: str) -> None:
        logger.info(
            "draining, at most %d s",
            WORKER_DRAIN_SECONDS,
            extra={"action": "worker_draining", "reason": reason},
        )
        self.stopping.set()
        if self.worker:
            self.worker.stop()  # type: ignore[no-untyped-call]

    async def _wait_for_database(self) -> bool:
        """Return True once Postgres answers and has the queue, False if a stop comes first."""
        started, pause = time.monotonic(), FIRST_WAIT_SECONDS
        while not self.stopping.is_set():
            try:
                await _ask_queue(self.settings)
            except psycopg.Error as error:
                logger.warning(
                    "waiting for postgres",
                    extra={
                        "action": "waiting_for_database",
                        "waited_s": round(time.monotonic() - started, 1),
                        "reason": (str(error) or type(error).__name__).splitlines()[0],
                    },
                )
            else:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_WAIT_SECONDS)
        return False

    async def _run_once(self) -> None:
        """Run jobs until a stop, or until the database is lost."""
        pool = AsyncConnectionPool(
            kwargs=connect_arguments(self.settings) | {"options": QUEUE_OPTIONS},
            min_size=1,
            max_size=QUEUE_CONNECTIONS,
            timeout=HEARTBEAT_SECONDS,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )
        try:
            # A new connector for each run: a connector keeps its pool, which is closed at the end.
            with queue.replace_connector(procrastinate.PsycopgConnector()):
                await pool.open()
                await queue.open_async(pool)
                await self._run_worker(self._new_worker(), pool)
        except DATABASE_ERRORS as error:
            logger.warning(
                "lost postgres, starting over",
                extra={"action": "worker_lost_database", "reason": type(error).__name__},
            )
        finally:
            await pool.close()

    async def _run_worker(self, worker: Worker, pool: AsyncConnectionPool) -> None:
        await release_foreign(pool, OWN_QUEUES)
        side_tasks = [
            asyncio.create_task(
                every(LOOK_SECONDS, lambda: rescue_stalled(pool, OWN_QUEUES)), name="rescue"
            ),
            # procrastinate's own heartbeat stops with the drain; the job would then count as
            # stalled.
            asyncio.create_task(every(HEARTBEAT_SECONDS, lambda: _renew(worker)), name="renew"),
            asyncio.create_task(
                every(deliveries.POLL_SECONDS, lambda: deliveries.call_if_due(pool)),
                name="webhooks",
            ),
        ]
        self.worker = worker
        try:
            if not self.stopping.is_set():
                await worker.run()  # type: ignore[no-untyped-call]
        finally:
            self.worker = None
            for task in side_tasks:
                task.cancel()

    def _new_worker(self) -> Worker:
        return Worker(
            queue,
            queues=OWN_QUEUES,
            name=f"worker-{self.settings.slot}",
            concurrency=self.settings.worker_concurrency,
            fetch_job_polling_interval=POLL_SECONDS,
            shutdown_graceful_timeout=WORKER_DRAIN_SECONDS,
            install_signal_handlers=False,
            update_heartbeat_interval=HEARTBEAT_SECONDS,
            stalled_worker_timeout=STALLED_SECONDS,
            worker_middleware=[run_job],
            additional_context={
                "database": self.database,
                "deliveries": self.deliveries,
                "export_keep_hours": self.settings.export_keep_hours,
            },
        )


def share_bytes(limit_bytes: int | None, processes: int) -> int | None:
    """Return the bytes above which a process is replaced, or None without a container limit."""
    supervisor = 1 if processes > 1 else 0
    return (
        None if limit_bytes is None else int(limit_bytes * MEMORY_SHARE / (processes + supervisor))
    )


async def _ask_queue(settings: WorkerSettings) -> None:
    async with await psycopg.AsyncConnection.connect(**connect_arguments(settings)) as connection:
        await connection.execute("SELECT FROM procrastinate_workers LIMIT 1")


async def _renew(worker: Worker) -> None:
    if worker.worker_id is not None:
        await queue.job_manager.update_heartbeat(worker.worker_id)


async def every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Call `action` every `seconds`, for ever, and log failures: the main loop reconnects."""
    while True:
        try:
            await action()
        except DATABASE_ERRORS as error:
            logger.info(
                "periodic action failed",
                extra={"action": "side_task_failed", "reason": type(error).__name__},
            )
        except Exception:
            # No one awaits this task. It would end silently, and stalled jobs would stay stalled.
            logger.exception("periodic action failed", extra={"action": "side_task_failed"})
        await asyncio.sleep(seconds)
