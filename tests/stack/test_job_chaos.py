"""Kills services at random while jobs are requested and run: faults 12, 13 and 36."""

import os
import random
import re
import signal
import statistics
import time
from contextlib import suppress

import pytest

from tests.conftest import Figure
from tests.stack import poison
from tests.stack.harness import Stack, wait_until
from tests.stack.job_ledger import Exports, ledger_kept, redeliveries
from tests.stack.load import Load

pytestmark = pytest.mark.drill
SERVICES = ("worker-blue", "redis", "api-blue", "postgres")
# The engine delays the restart of a container that ran for less than 10 s, and doubles the delay
# each time.
LEAST_LIFE_SECONDS = 10.5
# The failures that a killed API or Postgres may cause. If the export of such a request was
# committed, the worker finishes the export; otherwise the export does not exist.
OUTAGE = re.compile(r"(ConnectError|ReadError|WriteError|RemoteProtocolError)\b|50[23] ")
ENQUEUE = """
import asyncio, sys
from sqlalchemy import insert
from api.storing.database import Database
from api.exports.models import Export
from api.exports.tasks import WRITE_EXPORT
from api.storing.jobs import enqueue
from api.configuring.settings import load_settings

async def main(owner, count):
    database = Database(load_settings(), pool_size=1)
    for begin in range(0, count, 50):
        rows = [{"owner_id": owner}] * min(50, count - begin)
        async with database.transaction() as connection:
            made = await connection.execute(insert(Export).returning(Export.id), rows)
            for export in made.scalars().all():
                await enqueue(connection, WRITE_EXPORT, export_id=str(export))
    await database.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def enqueue(exports: Exports, count: int) -> None:
    """Enqueue exports as the API does, 50 in a transaction; a killed command enqueues fewer."""
    wait_until(exports.stack.is_serving, 60, "the stack serves")
    program = ["exec", "--no-TTY", "api-blue", "python", "-c", ENQUEUE, exports.owner, str(count)]
    exports.stack.compose(*program, check=False)


def asked_for(exports: Exports) -> int:
    """Return how many exports were committed."""
    return int(
        exports.stack.sql(f"select count(*) from exports where owner_id = '{exports.owner}'")
    )


class Killer:
    """Kills services in random order, each after it has run long enough to restart at once."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack = stack
        self.random = random.Random(seed)  # noqa: S311  chooses a service, not a secret
        self.killed_at = dict.fromkeys(SERVICES, 0.0)
        self.count = 0

    def kill(self) -> None:
        def ready() -> list[str]:
            return [
                name
                for name, at in self.killed_at.items()
                if time.monotonic() - at > LEAST_LIFE_SECONDS
            ]

        wait_until(ready, LEAST_LIFE_SECONDS + 30, "a service that may be killed")
        service = self.random.choice(ready())
        wait_until(lambda: self.stack.host_pid(service), 60, f"{service} runs")
        pid = self.stack.host_pid(service)
        with suppress(
            ProcessLookupError
        ):  # the process has just exited by itself, as a worker does without Postgres
            os.kill(pid, signal.SIGKILL)
        self.count += 1
        wait_until(
            lambda: self.stack.host_pid(service) not in {0, pid}, 60, f"{service} runs again"
        )
        self.killed_at[service] = time.monotonic()


def chaos(stack: Stack, jobs: int, kills: int, figure: Figure) -> None:
    """Request `jobs` exports, most of them in bulk, during `kills` kills."""
    exports, killer, started = Exports(stack), Killer(stack, seed=kills), time.monotonic()
    exports.give_items(20, 100)
    batches = max(2, kills // 10)
    try:
        with ledger_kept(stack):
            with exports.streaming(rate=5):
                for number in range(kills):
                    if number % (kills // batches) == 0:
                        enqueue(exports, jobs // batches)
                    if number == kills // 2:
                        stack.redis("flushall")
                    killer.kill()
                wait_until(stack.is_serving, 60, "the stack serves")
            while (left := jobs - asked_for(exports)) > 0:
                enqueue(exports, left)
            seconds = exports.wait_until_done(240)
            lost, doubled = exports.lost_and_doubled()
            gaps = redeliveries(stack, exports.owner)
    finally:
        stack.sql(f"delete from procrastinate_jobs where args->>'export_id' in {of(exports)}")
    figure(
        f"{asked_for(exports)} jobs under {killer.count} kills and a FLUSHALL in "
        f"{time.monotonic() - started:.0f} s: "
        f"lost {len(lost)}, doubled {len(doubled)}; {len(gaps)} brought back, the slowest after "
        f"{max(gaps, default=0):.0f} s; {len(exports.failures)} requests failed; done "
        f"{seconds:.0f} s after the last"
    )
    assert (lost, doubled) == ([], [])
    assert killer.count >= kills * 0.9
    assert [seen for seen in exports.failures if not OUTAGE.match(seen)] == []
    # The promise for a killed worker (30 s), and 10 s for Postgres to recover if it is killed in
    # that time.
    assert max(gaps, default=0) < 30 + 10


def of(exports: Exports) -> str:
    """Return the ids of the user's exports, as a subquery."""
    return f"(select id::text from exports where owner_id = '{exports.owner}')"


@pytest.mark.counts_losses
def test_kills_of_everything_lose_no_job_and_do_none_twice(stack: Stack, figure: Figure) -> None:
    chaos(stack, jobs=500, kills=8, figure=figure)


@pytest.mark.counts_losses
@pytest.mark.alone  # if other stacks run, the jobs exceed the limit on two cores
@pytest.mark.nightly
def test_a_hundred_kills_lose_none_of_ten_thousand_jobs(stack: Stack, figure: Figure) -> None:
    chaos(stack, jobs=10_000, kills=100, figure=figure)


@pytest.mark.counts_losses
@pytest.mark.nightly
def test_a_job_that_kills_its_worker_takes_no_other_with_it(stack: Stack, figure: Figure) -> None:
    """The job kills its worker in all five attempts, each time while other jobs run."""
    with poison.poisonable(stack), ledger_kept(stack):
        harmful, healthy = Exports(stack), Exports(stack)
        with stack.client(timeout=30) as client:
            kills = harmful.ask(client)
            slow = [healthy.ask(client) for _ in range(3)]
            poison.poison(stack, kills, "kills")
            for export in slow:
                poison.poison(stack, export, "slow")
            poison.start(stack)
            with healthy.streaming(rate=2):
                done = (
                    "select status = 'failed' from procrastinate_jobs where "
                    f"args->>'export_id' = '{kills}'"
                )
                seconds = wait_until(
                    lambda: stack.sql(done) == "t", 240, "the job is set aside", every=1
                )
        healthy.wait_until_done(120)
        assert healthy.lost_and_doubled() == ([], [])
        ends = stack.inspect("worker-green")["RestartCount"]
    figure(
        f"a job that kills its worker was set aside after {seconds:.0f} s and {ends} "
        "restarts; others: 0 lost"
    )
    assert ends == 5


def memory_mb(stack: Stack, service: str) -> float:
    """Return a container's memory in MB, as the engine counts it."""
    text = stack.run(
        "docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", stack.container(service)
    ).stdout
    number, unit = re.match(r"([\d.]+)(\w)iB", text).groups()  # type: ignore[union-attr]
    return float(number) * {"K": 1 / 1024, "M": 1, "G": 1024}[unit]


def execution_p95_ms(exports: Exports) -> float:
    """Return the 95th percentile of the run time of the last thousand jobs, in ms."""
    took = (
        "select extract(epoch from max(e.at) filter (where e.type = 'succeeded')"
        " - max(e.at) filter (where e.type = 'started')) * 1000 as ms from procrastinate_events e"
        f" join procrastinate_jobs j on j.id = e.job_id where j.args->>'export_id' in {of(exports)}"
        " and j.status = 'succeeded' group by j.id order by j.id desc limit 1000"
    )
    return float(
        exports.stack.sql(
            f"select percentile_cont(0.95) within group (order by ms) from ({took}) t"
        )
    )


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[18]


def flood(exports: Exports, count: int) -> None:
    """Queue many exports at once, and a job that always fails before every thousandth."""
    of_owner = (
        f"select gen_random_uuid(), '{exports.owner}', 'pending' from generate_series(1, {count})"
    )
    poisoned = "case when row_number() over () % 1000 = 1 then 'poison' else id::text end"
    exports.stack.sql(
        f"with made as (insert into exports (id, owner_id, status) {of_owner} returning id)"
        " insert into procrastinate_jobs (queue_name, task_name, args)"
        " select 'exports.write', 'exports.write', jsonb_build_object('export_id', "
        f"{poisoned}) from made"
    )


@pytest.mark.counts_losses
@pytest.mark.alone  # other stacks would change the compared percentiles
@pytest.mark.nightly
def test_a_hundred_thousand_queued_jobs_slow_nobody_down(stack: Stack, figure: Figure) -> None:
    few, many = Exports(stack), Exports(stack)
    steady, loaded = Load(stack, rate=30), Load(stack, rate=30)
    services = ("worker-blue", "api-blue")
    try:
        with steady.running():
            enqueue(few, 1000)
            few.wait_until_done(120)
        before, memory = execution_p95_ms(few), [memory_mb(stack, name) for name in services]
        flood(many, 100_000)
        with loaded.running() as report:
            time.sleep(60)  # the measured period
            held = stack.sql("select count(*) from procrastinate_jobs where status = 'todo'")
        after, grown = execution_p95_ms(many), [memory_mb(stack, name) for name in services]
        figure(
            f"{held} of 100,000 jobs still queued after 60 s: p95 of a job {before:.1f} -> "
            f"{after:.1f} ms, the API's "
            f"p99 {steady.report.p99_ms():.0f} -> {report.p99_ms():.0f} ms, memory of "
            "worker and API in MB "
            f"{[round(mb) for mb in memory]} -> {[round(mb) for mb in grown]}"
        )
        assert int(held) > 50_000
        assert p95(report.latencies) < 2 * p95(steady.report.latencies)
        assert report.failures == []
        assert after < 2 * before
        assert all(late < early * 1.25 + 8 for early, late in zip(memory, grown, strict=True))
        tried = "select max(attempts) from procrastinate_jobs where args->>'export_id' = 'poison'"
        wait_until(
            lambda: stack.sql(tried) == "5",
            120,
            "the first of the jobs that always fail is set aside",
            every=1,
        )
    finally:
        stack.sql("delete from procrastinate_jobs where status in ('todo', 'failed')")
        stack.sql(f"delete from exports where owner_id = '{many.owner}' and status = 'pending'")
