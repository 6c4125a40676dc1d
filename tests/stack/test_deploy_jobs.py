"""A deploy neither loses a job nor runs it twice, whether the job is queued or running."""

import time
from collections.abc import Iterator

import pytest

from api.configuring.timeouts import WORKER_DRAIN_SECONDS
from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.job_ledger import Exports, ledger_kept

pytestmark = pytest.mark.drill
EXPORTS_PER_SECOND = 10
# 6 MB are 23 chunks of 256 KiB, which take 92 s (job_ledger.TRIGGERS): longer than a deploy and the
# drain together.
ITEMS, DESCRIPTION_BYTES = 3000, 2000


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    yield
    stack.back_to_blue()


def begin_slowly(exports: Exports) -> str:
    """Start an export that is slow until `speed_up`; return its id once it runs."""
    exports.give_items(ITEMS, DESCRIPTION_BYTES)
    exports.stack.sql(f"insert into slow_owners values ('{exports.owner}')")
    with exports.stack.client(timeout=30) as client:
        export = exports.ask(client)
    wait_until(lambda: exports.events(export, "started") == 1, 60, "the worker runs the job")
    return export


def speed_up(exports: Exports) -> None:
    """Make the remaining chunks as fast as those of other exports."""
    exports.stack.sql(f"delete from slow_owners where id = '{exports.owner}'")


@pytest.mark.counts_losses
def test_deploys_under_a_stream_of_jobs_lose_none_and_do_none_twice(
    stack: Stack, figure: Figure
) -> None:
    finishing, returning, stream = Exports(stack), Exports(stack), Exports(stack)
    first = stack.live()
    with ledger_kept(stack):
        with stream.streaming(EXPORTS_PER_SECOND):
            in_drain, given_back = begin_slowly(finishing), begin_slowly(returning)
            stack.vary()
            stack.deploy()
            assert stack.live()[1] != first[1]
            # The former worker drains and still runs both jobs.
            assert [finishing.events(in_drain, kind) for kind in ("started", "succeeded")] == [1, 0]
            speed_up(finishing)
            wait_until(
                lambda: finishing.events(in_drain, "succeeded") == 1,
                20,
                "the job that ends in the drain is finished",
            )
            back = wait_until(
                lambda: returning.events(given_back, "started") == 2,
                90,
                "the other job is released",
            )
            speed_up(returning)
            stack.vary()
            stack.deploy()
        stream.wait_until_done(180)
        assert stack.live()[0] != first[0]
        assert finishing.events(in_drain, "started") == 1, "the former worker finished the job"
        figure(
            f"two deploys under {len(stream.acknowledged)} exports, {back:.0f} s until a "
            "long one was given back"
        )
        for exports in (finishing, returning, stream):
            assert exports.failures == []
            assert exports.lost_and_doubled() == ([], [])


@pytest.mark.counts_losses
def test_a_rollback_while_the_former_worker_drains_leaves_a_worker(
    stack: Stack, figure: Figure
) -> None:
    """The rollback cancels the worker's drain. The worker must not exit: no other worker runs."""
    slow, after = Exports(stack), Exports(stack)
    first = stack.live()
    with ledger_kept(stack):
        begin_slowly(slow)
        stack.vary()
        stack.deploy(WATCH_SECONDS="1")
        stack.run("./scripts/rollback.sh")
        assert stack.live() == first
        time.sleep(WORKER_DRAIN_SECONDS + 2)  # a drain that was not cancelled is over by then
        with stack.client(timeout=30) as client:
            export = after.ask(client)
        took = wait_until(lambda: after.events(export, "succeeded") == 1, 60, "somebody takes jobs")
        figure(f"rollback in the drain: an export after it was done in {took:.1f} s")
        speed_up(slow)
        slow.wait_until_done(180)
        assert [*slow.lost_and_doubled(), *after.lost_and_doubled()] == [[], [], [], []]
