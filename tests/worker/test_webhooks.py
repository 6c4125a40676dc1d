"""Tests the schedule of attempts: a run sends many at once, and no call is lost."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from api.storing.database import Database
from worker.webhooks import deliveries, sending
from worker.webhooks.deliveries import MAX_ATTEMPTS, Claimed, Deliveries, pause_seconds
from worker.webhooks.sending import Outcome, Sender


def test_a_delivery_is_tried_for_about_a_day() -> None:
    middle = [2, 6, 18, 54, 162, 486, 1458, 4374, 13122, 21600, 21600, 21600]
    for attempts, expected in enumerate(middle, 1):
        pauses = [pause_seconds(attempts) or 0 for _ in range(50)]
        assert expected * 0.5 <= min(pauses) <= max(pauses) <= expected * 1.5
        assert len(set(pauses)) > 25
    assert 20 <= sum(middle) / 3600 <= 26
    assert pause_seconds(MAX_ATTEMPTS) is None
    assert len(middle) == MAX_ATTEMPTS - 1


def test_a_lease_outlives_an_attempt_and_a_drain_the_attempts_under_way() -> None:
    assert sending.CONNECT_SECONDS < sending.TOTAL_SECONDS
    assert sending.TOTAL_SECONDS + 4 <= deliveries.LEASE_SECONDS
    assert deliveries.POLL_SECONDS < deliveries.LEASE_SECONDS


class Rehearsal(Deliveries):
    """Claims deliveries from a list instead of the table."""

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__(cast(Database, None), cast(Sender, None), stopping)
        self.waiting: list[UUID] = []
        self.sent: list[UUID] = []
        self.most_at_once = self.at_once = 0
        self.full = asyncio.Event()
        self.blocked_until: dict[UUID, asyncio.Event] = {}
        self.may_end = asyncio.Event()

    async def _claim(self, under_way: dict[asyncio.Task[None], UUID]) -> list[Claimed]:
        await asyncio.sleep(0)
        owners = list(under_way.values())
        most = deliveries.CLAIM_AT_ONCE
        next_owners = [owner for owner in self.waiting if owners.count(owner) < most][:most]
        for owner in next_owners:
            self.waiting.remove(owner)
        return [claimed(owner) for owner in next_owners]

    async def _attempt(self, delivery: Claimed) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once >= deliveries.AT_ONCE:
            self.full.set()
        await self.blocked_until.get(delivery.owner_id, self.may_end).wait()
        self.at_once -= 1
        self.sent.append(delivery.owner_id)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  the code under test sets no event to wait for
            await asyncio.sleep(0.001)


def claimed(owner: UUID) -> Claimed:
    values: dict[str, Any] = {
        "subscription_id": uuid4(),
        "id": uuid4(),
        "item_id": uuid4(),
        "owner_id": owner,
        "sequence": 1,
    }
    now = datetime.now(UTC)
    return Claimed(
        **values,
        event_type="t",
        content={},
        created_at=now,
        attempts=1,
        request_id=None,
        url="u",
        secret="s",
        previous=None,
    )


def test_many_are_sent_at_once_and_the_places_are_bounded() -> None:
    async def run() -> Rehearsal:
        rehearsal = Rehearsal(asyncio.Event())
        rehearsal.waiting = [uuid4() for _ in range(100)]
        running = asyncio.create_task(rehearsal.run())
        await asyncio.wait_for(rehearsal.full.wait(), 30)
        rehearsal.may_end.set()
        await running
        return rehearsal

    rehearsal = asyncio.run(run())
    assert len(rehearsal.sent) == 100
    assert (
        deliveries.AT_ONCE
        <= rehearsal.most_at_once
        <= deliveries.AT_ONCE + deliveries.CLAIM_AT_ONCE
    )


def test_what_comes_while_a_slow_attempt_is_under_way_does_not_wait_for_it() -> None:
    async def run() -> tuple[Rehearsal, list[UUID]]:
        slow, quick = uuid4(), uuid4()
        rehearsal = Rehearsal(asyncio.Event())
        rehearsal.blocked_until[slow] = asyncio.Event()
        rehearsal.may_end.set()
        rehearsal.waiting = [slow]
        first = asyncio.create_task(rehearsal.run())
        await until(lambda: rehearsal.at_once == 1)
        rehearsal.waiting = [quick]
        # A second run would last as long as the current attempt.
        await asyncio.wait_for(rehearsal.run(), 30)
        await until(lambda: rehearsal.sent == [quick])
        rehearsal.blocked_until[slow].set()
        await first
        return rehearsal, [quick, slow]

    rehearsal, expected = asyncio.run(run())
    assert rehearsal.sent == expected


def test_a_shutdown_lets_attempts_end_and_begins_none() -> None:
    async def run() -> Rehearsal:
        stopping = asyncio.Event()
        rehearsal = Rehearsal(stopping)
        rehearsal.waiting = [uuid4() for _ in range(100)]
        run = asyncio.create_task(rehearsal.run())
        await asyncio.wait_for(rehearsal.full.wait(), 30)
        stopping.set()
        rehearsal.may_end.set()
        await run
        return rehearsal

    rehearsal = asyncio.run(run())
    assert (
        deliveries.AT_ONCE <= len(rehearsal.sent) <= deliveries.AT_ONCE + deliveries.CLAIM_AT_ONCE
    )
    assert rehearsal.at_once == 0


def test_an_attempt_that_breaks_off_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        async def send(self, *_: object) -> Outcome:
            raise RuntimeError("a bug")

    deliveries = Deliveries(cast(Database, None), cast(Sender, Broken()), asyncio.Event())
    asyncio.run(deliveries._attempt(claimed(uuid4())))
    assert [vars(record)["action"] for record in caplog.records] == ["webhook_attempt_broken"]
    assert "secret" not in repr(claimed(uuid4()))
