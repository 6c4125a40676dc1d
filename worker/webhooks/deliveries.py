"""Sends the deliveries that are due: many at once, and those of one item in their order.

The table of deliveries, which the API fills, decides what is sent. A job only wakes the worker up:
a lost job delays an event by POLL_SECONDS, no more. A worker claims a delivery by moving its next
attempt LEASE_SECONDS into the future. If the worker dies, the delivery is due again then.
"""

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import procrastinate.exceptions
from prometheus_client import Counter
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import RowMapping, Update, func, select, text, update

from api.observing import context
from api.storing.database import Database
from api.storing.jobs import queue
from api.webhooks.events import SET_ASIDE_ALL
from api.webhooks.models import Delivery, Status, Subscription
from api.webhooks.tasks import DELIVER_WEBHOOKS
from worker.pruning import BATCH_ROWS, delete_in_batches
from worker.webhooks.sending import Outcome, Sender, message

logger = logging.getLogger(__name__)

# Above TOTAL_SECONDS (worker/webhooks/sending.py) by the time to record the result.
LEASE_SECONDS = 15
POLL_SECONDS = 2.0  # between two reads of the index of due deliveries; a retry may be this late
RUN_SECONDS = 60.0  # of one job, so that no job runs for ever; the next job takes the rest
AT_ONCE = 16  # open attempts per process: slow receivers occupy these, not the places of jobs
# Also: while a user has this many open attempts, the deliveries of other users go first.
CLAIM_AT_ONCE = 4
KEEP_DAYS = 30

# 2 s, 6 s, 18 s and so on to six hours: 13 attempts, the last about 23.5 hours after the first.
MAX_ATTEMPTS = 13
FIRST_PAUSE_SECONDS, FACTOR, LONGEST_PAUSE_SECONDS = 2.0, 3, 6 * 3600.0

DELIVERIES = Counter("slipway_webhook_attempts_total", "Attempts to deliver an event.", ["outcome"])

# Of an item's events for a subscription, only the earliest pending one: the others wait for it.
DUE = """
    delivery.status = 'pending' AND delivery.next_attempt_at <= now() AND NOT EXISTS (
        SELECT FROM webhook_deliveries earlier
         WHERE earlier.subscription_id = delivery.subscription_id
           AND earlier.item_id = delivery.item_id
           AND earlier.status = 'pending' AND earlier.sequence < delivery.sequence
    )
"""
IS_DUE = f"""
    SELECT EXISTS (SELECT FROM webhook_deliveries delivery WHERE {DUE})
"""  # noqa: S608  constants only
CLAIM = text(f"""
    WITH due AS MATERIALIZED (
        SELECT delivery.subscription_id, delivery.id
          FROM webhook_deliveries delivery
          JOIN webhook_subscriptions subscription ON subscription.id = delivery.subscription_id
         WHERE {DUE} AND subscription.owner_id <> ALL (CAST(:busy AS uuid[]))
         ORDER BY delivery.next_attempt_at
         LIMIT {CLAIM_AT_ONCE}
           FOR UPDATE OF delivery SKIP LOCKED
    )
    UPDATE webhook_deliveries delivery
       SET attempts = attempts + 1,
           next_attempt_at = now() + make_interval(secs => {LEASE_SECONDS})
      FROM due JOIN webhook_subscriptions subscription ON subscription.id = due.subscription_id
     WHERE delivery.subscription_id = due.subscription_id AND delivery.id = due.id
    RETURNING delivery.subscription_id, delivery.id, delivery.item_id, delivery.sequence,
              delivery.event_type, delivery.content, delivery.created_at, delivery.attempts,
              delivery.request_id, subscription.owner_id, subscription.url, subscription.secret,
              CASE WHEN subscription.previous_secret_until > now()
                   THEN subscription.previous_secret END AS previous
""")  # noqa: S608  constants only
PRUNE = text(f"""
    DELETE FROM webhook_deliveries WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM webhook_deliveries
         WHERE created_at < now() - make_interval(days => {KEEP_DAYS}) LIMIT {BATCH_ROWS}
    ))
""")  # noqa: S608  numbers of this module only


@dataclass(frozen=True)
class Claimed:
    """A delivery that this process has claimed; `attempts` includes the present attempt."""

    subscription_id: UUID
    id: UUID
    item_id: UUID
    sequence: int
    event_type: str
    content: dict[str, Any]
    created_at: datetime
    attempts: int
    request_id: str | None
    owner_id: UUID
    url: str = field(repr=False)  # may hold a token
    secret: str = field(repr=False)
    previous: str | None = field(repr=False)

    @classmethod
    def of(cls, row: RowMapping) -> "Claimed":
        """Make a delivery of a row that CLAIM returns."""
        return cls(**row)


def pause_seconds(attempts: int) -> float | None:
    """Return the pause after this many attempts, plus or minus half; None after the last one."""
    if attempts >= MAX_ATTEMPTS:
        return None
    pause: float = min(FIRST_PAUSE_SECONDS * FACTOR ** (attempts - 1), LONGEST_PAUSE_SECONDS)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311  jitter


class Deliveries:
    """Sends deliveries. A process has one run at a time: a second call makes it check again."""

    def __init__(self, database: Database, sender: Sender, stopping: asyncio.Event) -> None:
        self._database = database
        self._sender = sender
        self._stopping = stopping
        self._is_running = False
        self._called = asyncio.Event()
        # One connection of the pool at a time: the pool has one for each job, and this runs in a
        # job.
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Send until nothing is due, a shutdown begins or RUN_SECONDS are over."""
        self._called.set()
        if self._is_running:
            return
        self._is_running = True
        try:
            await self._run()
        finally:
            self._is_running = False

    async def _run(self) -> None:
        under_way: dict[asyncio.Task[None], UUID] = {}
        try:
            await self._send_what_is_due(under_way, asyncio.get_running_loop().time() + RUN_SECONDS)
        except Exception:
            if under_way:  # the database failed: results of sent attempts may still be recorded
                await asyncio.wait(under_way)
            raise

    async def _send_what_is_due(
        self, under_way: dict[asyncio.Task[None], UUID], end: float
    ) -> None:
        while under_way or self._called.is_set():
            self._called.clear()
            is_over = self._stopping.is_set() or asyncio.get_running_loop().time() > end
            claimed = [] if is_over or len(under_way) >= AT_ONCE else await self._claim(under_way)
            for delivery in claimed:
                under_way[asyncio.create_task(self._attempt(delivery))] = delivery.owner_id
            if claimed:
                self._called.set()  # more may be due
            elif under_way:
                await self._wait(set(under_way))
            for task in [task for task in under_way if task.done()]:
                del under_way[task]
                self._called.set()  # the item's next event may be sent now

    async def _wait(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until an attempt ends or another call arrives."""
        call = asyncio.create_task(self._called.wait())
        try:
            await asyncio.wait({*tasks, call}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            call.cancel()

    async def _claim(self, under_way: dict[asyncio.Task[None], UUID]) -> list[Claimed]:
        owners = list(under_way.values())
        busy = [str(owner) for owner in set(owners) if owners.count(owner) >= CLAIM_AT_ONCE]
        async with self._turn, self._database.transaction() as connection:
            rows = (await connection.execute(CLAIM, {"busy": busy})).mappings().all()
        return [Claimed.of(row) for row in rows]

    async def _attempt(self, delivery: Claimed) -> None:
        context.request_id.set(delivery.request_id)
        try:
            if delivery.attempts > MAX_ATTEMPTS:  # every attempt ended when its worker died
                outcome = Outcome(error="every attempt was interrupted")
            else:
                body = message(
                    delivery.event_type, delivery.created_at.isoformat(), delivery.content
                )
                secrets = [secret for secret in (delivery.secret, delivery.previous) if secret]
                outcome = await self._sender.send(delivery.url, secrets, delivery.id, body)
            async with self._turn:
                await self._record(delivery, outcome)
        except Exception:
            # The delivery is due again when its lease ends. No one awaits this task's result.
            logger.exception(
                "attempt interrupted", extra={"action": "webhook_attempt_broken", **facts(delivery)}
            )

    async def _record(self, delivery: Claimed, outcome: Outcome) -> None:
        pause = (
            None if outcome.is_delivered or outcome.is_gone else pause_seconds(delivery.attempts)
        )
        final = Status.DELIVERED if outcome.is_delivered else Status.FAILED
        values = {
            "status": final.value if pause is None else Status.PENDING.value,
            "last_status_code": outcome.status_code,
            "last_error": outcome.error,
            "last_response": outcome.response,
            "next_attempt_at": None if pause is None else func.now() + timedelta(seconds=pause),
            "delivered_at": func.now() if outcome.is_delivered else None,
        }
        # Record only the claimed attempt: an attempt that outlived its lease must not overwrite a
        # later one.
        claimed = (
            Delivery.subscription_id == delivery.subscription_id,
            Delivery.id == delivery.id,
            Delivery.status == Status.PENDING.value,
            Delivery.attempts == delivery.attempts,
        )
        async with self._database.transaction() as connection:
            await connection.execute(update(Delivery).where(*claimed).values(values))
            await connection.execute(later_events(delivery, pause))
            if outcome.is_gone:
                own = Subscription.id == delivery.subscription_id
                await connection.execute(update(Subscription).where(own).values(is_enabled=False))
                await connection.execute(SET_ASIDE_ALL, {"disabled_id": delivery.subscription_id})
        DELIVERIES.labels("delivered" if outcome.is_delivered else "failed").inc()
        report(delivery, outcome, pause)


def later_events(delivery: Claimed, pause: float | None) -> Update:
    """Return the update of the item's later events.

    They wait for the retry, or the first of them is due. If all stayed due, every claim would read
    them in vain: 10,000 of them took 30 ms each time.
    """
    of_item = (
        Delivery.subscription_id == delivery.subscription_id,
        Delivery.item_id == delivery.item_id,
    )
    later = *of_item, Delivery.status == Status.PENDING.value, Delivery.sequence > delivery.sequence
    if pause is not None:
        return (
            update(Delivery)
            .where(*later)
            .values(next_attempt_at=func.now() + timedelta(seconds=pause))
        )
    # An event that the API adds meanwhile is due from the start.
    following = select(func.min(Delivery.sequence)).where(*later).scalar_subquery()
    return (
        update(Delivery)
        .where(*later, Delivery.sequence == following)
        .values(next_attempt_at=func.now())
    )


def facts(delivery: Claimed) -> dict[str, Any]:
    """Return the log fields of a delivery."""
    return {
        "subscription_id": str(delivery.subscription_id),
        "event_id": str(delivery.id),
        "attempts": delivery.attempts,
    }


def report(delivery: Claimed, outcome: Outcome, pause: float | None) -> None:
    """Log the result of an attempt; `pause` is in seconds, and None if no attempt follows."""
    fields = {**facts(delivery), "reason": outcome.error}
    if outcome.is_delivered:
        logger.info("webhook delivered", extra={"action": "webhook_delivered", **fields})
    elif pause is not None:
        logger.info(
            "webhook will be retried",
            extra={"action": "webhook_retried", "in_s": round(pause), **fields},
        )
    else:
        logger.warning("webhook failed for good", extra={"action": "webhook_set_aside", **fields})
    if outcome.is_gone:
        logger.warning(
            "webhook disabled by its receiver", extra={"action": "webhook_disabled", **fields}
        )


async def call_if_due(pool: AsyncConnectionPool) -> None:
    """Enqueue a run if a delivery is due: a retry, or one that a lost job or a dead worker left."""
    async with pool.connection() as connection:
        row = await (await connection.execute(IS_DUE)).fetchone()
    if row and row[0]:
        with suppress(procrastinate.exceptions.AlreadyEnqueued):
            await queue.configure_task(
                DELIVER_WEBHOOKS, queue=DELIVER_WEBHOOKS, queueing_lock=DELIVER_WEBHOOKS
            ).defer_async()


async def prune(database: Database) -> None:
    """Delete deliveries after KEEP_DAYS, delivered or not."""
    deleted = await delete_in_batches(database, PRUNE)
    logger.info(
        "webhook deliveries pruned", extra={"action": "webhooks_pruned", "deleted": deleted}
    )
