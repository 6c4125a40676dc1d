"""Tests jobs that fail, block, use too much memory or time, and their commands and metrics."""

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.stack import poison
from tests.stack.harness import Stack, wait_until
from tests.stack.job_ledger import Exports, ledger_kept
from worker.loop import QUEUE_OPTIONS

pytestmark = pytest.mark.drill


@pytest.fixture
def _poisonable(stack: Stack) -> Iterator[None]:
    with poison.poisonable(stack):
        yield


def ask(exports: Exports, count: int) -> list[str]:
    """Request exports."""
    with exports.stack.client(timeout=30) as client:
        return [exports.ask(client) for _ in range(count)]


def job(stack: Stack, export: str) -> dict[str, str]:
    """Return the job of an export: id, status, attempts."""
    found = stack.sql(
        f"select id, status, attempts from procrastinate_jobs where args->>'export_id' = '{export}'"
    )
    return dict(zip(("id", "status", "attempts"), found.split("|"), strict=True))


def is_over(stack: Stack, *exports: str) -> bool:
    """Whether the jobs of these exports have ended, with success or not."""
    return {job(stack, export)["status"] for export in exports} <= {"succeeded", "failed"}


def actions(stack: Stack, service: str) -> list[dict[str, object]]:
    """Return the JSON lines of a service's log."""
    found = []
    for line in stack.compose("logs", "--no-color", "--no-log-prefix", service).splitlines():
        with suppress(ValueError):
            found.append(
                json.loads(line[line.find("{") :])
            )  # Compose prints cursor codes before some lines
    return found


@pytest.mark.counts_losses
@pytest.mark.usefixtures("_poisonable")
def test_a_job_that_raises_takes_long_or_grows_harms_no_other(stack: Stack) -> None:
    with ledger_kept(stack):
        harmful, healthy = Exports(stack), Exports(stack)
        raises, takes_long, grows = ask(harmful, 3)
        for export, kind, left in (
            (raises, "raises", 1),
            (takes_long, "takes long", 1),
            (grows, "grows", 5),
        ):
            poison.poison(stack, export, kind, attempts_left=left)
        ask(healthy, 30)
        poison.start(stack, "WORKER_MEMORY=256m")
        wait_until(
            lambda: is_over(stack, raises, takes_long, grows), 120, "the harmful jobs have ended"
        )
        healthy.wait_until_done(120)
        assert healthy.lost_and_doubled() == ([], [])
    assert [job(stack, export)["status"] for export in (raises, takes_long, grows)] == [
        "failed",
        "failed",
        "succeeded",
    ]
    failed = (
        f"select count(*) from exports where status = 'failed' and id in ('{raises}', "
        f"'{takes_long}')"
    )
    assert stack.sql(failed) == "2", "both exports are shown as failed"

    def is_replaced() -> bool:
        return int(stack.inspect("worker-green")["RestartCount"]) >= 1

    wait_until(is_replaced, 90, "the process that took too much memory is replaced")
    seen = actions(stack, "worker-green")
    # On a busy machine another job may exceed its two seconds too; the worker then retries that
    # job.
    took_long = job(stack, takes_long)["id"]
    (late,) = [
        line
        for line in seen
        if line["action"] == "job_timed_out" and str(line["job_id"]) == took_long
    ]
    assert (late["task"], late["limit_s"], late["attempts"]) == ("exports.write", 2, 5)
    assert late["request_id"]
    assert [line for line in seen if line["action"] == "worker_over_memory"]
    assert not stack.inspect("worker-green")["State"]["OOMKilled"]


@pytest.mark.counts_losses
@pytest.mark.usefixtures("_poisonable")
def test_a_job_that_blocks_its_worker_is_set_aside_and_the_worker_replaced(
    stack: Stack, figure: Figure
) -> None:
    with ledger_kept(stack):
        harmful, healthy = Exports(stack), Exports(stack)
        (blocks,) = ask(harmful, 1)
        beside = ask(healthy, 3)
        poison.poison(stack, blocks, "blocks", attempts_left=1)
        for export in beside:
            poison.poison(stack, export, "slow")  # runs while the event loop is blocked
        poison.start(stack)
        seconds = wait_until(
            lambda: stack.inspect("worker-green")["RestartCount"] >= 1, 90, "the worker exits"
        )
        ask(healthy, 20)
        wait_until(lambda: is_over(stack, blocks), 120, "the job is set aside")
        healthy.wait_until_done(180)
        assert healthy.lost_and_doubled() == ([], [])
    assert job(stack, blocks)["status"] == "failed"
    logs = stack.compose("logs", "--no-color", "worker-green")
    assert "Timeout (0:00:15)!" in logs
    assert re.search(r'exports/service.py", line \d+ in write_export', logs), "not in the log"
    assert [
        line["task"] for line in actions(stack, "worker-green") if line["action"] == "job_set_aside"
    ]
    figure(
        f"a worker whose loop was blocked ended itself after {seconds:.0f} s, the job was "
        "set aside, others done"
    )


def test_a_suspect_that_this_release_does_not_know_holds_up_no_other(stack: Stack) -> None:
    """The state after a rollback, if a job of the newer release killed its workers."""
    unknown = (
        "insert into procrastinate_jobs (queue_name, task_name, lock) values ('no.such', "
        "'no.such', 'suspect')"
    )
    stack.compose("stop", "worker-blue")
    try:
        foreign = stack.sql(f"{unknown} returning id")
        exports = Exports(stack)
        (known,) = ask(exports, 1)
        stack.sql(
            f"update procrastinate_jobs set lock = 'suspect' where args->>'export_id' = '{known}'"
        )
    finally:
        stack.compose("up", "--detach", "--no-deps", "--wait", "worker-blue")
    try:
        exports.wait_until_done(60)
        assert job(stack, known)["status"] == "succeeded"
        assert stack.sql(f"select status from procrastinate_jobs where id = {foreign}") == "todo"
    finally:
        stack.sql(f"delete from procrastinate_jobs where id = {foreign}")


@pytest.mark.counts_losses
@pytest.mark.usefixtures("_poisonable")
def test_what_comes_by_the_clock_comes_once_from_several_workers(
    stack: Stack, figure: Figure
) -> None:
    """Two processes run in one slot and one under the other slot's name; one of them is killed."""
    before = stack.sql("select coalesce(max(id), 0) from procrastinate_jobs")
    poison.start(stack, "WORKER_PROCESSES=2")
    first = stack.host_pid("worker-green")
    other = stack.run(
        *(
            "docker",
            "compose",
            "run",
            "--detach",
            "--no-deps",
            "--env",
            "SLIPWAY_SLOT=blue",
            "worker-green",
        )
    ).stdout.strip()
    ticks = (
        f"select count(*) from procrastinate_jobs where task_name = 'jobs.prune' and id > {before}"
    )
    try:
        wait_until(lambda: int(stack.sql(ticks)) >= 3, 90, "several ticks")
        children = set(
            Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
        )
        assert len(children) == 2
        os.kill(int(min(children)), signal.SIGKILL)
        now = int(stack.sql(ticks))
        wait_until(lambda: int(stack.sql(ticks)) >= now + 2, 90, "the ticks continue")

        def is_replaced() -> bool:
            left = set(
                Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
            )
            return len(left) == 2 and left != children

        wait_until(is_replaced, 90, "a new process replaces it")
    finally:
        stack.run("docker", "rm", "--force", other)
    assert stack.metrics_of("worker-green", 9101), "each process serves the metrics of its own jobs"
    by_tick = (
        f"select count(*) from procrastinate_jobs where task_name = 'jobs.prune' and id > {before}"
    )
    twice = stack.sql(f"{by_tick.replace('count(*)', 'args')} group by args having count(*) > 1")
    assert twice == ""
    assert stack.inspect("worker-green")["RestartCount"] == 0
    figure(f"{stack.sql(by_tick)} ticks with three workers, each once")


def test_failed_jobs_are_listed_retried_and_discarded(stack: Stack) -> None:
    stack.sql("delete from procrastinate_jobs where status = 'failed'")  # jobs of an earlier test
    exports = Exports(stack)
    one, two, three = ask(exports, 3)
    exports.wait_until_done(120)
    ids = {export: job(stack, export)["id"] for export in (one, two, three)}
    for export in (one, two):
        stack.sql(
            "update procrastinate_jobs set status = 'failed', attempts = 5 where id = "
            f"{ids[export]}"
        )
    listed = stack.run("./scripts/jobs.sh", "list")
    assert f"{ids[one]}  exports.write  5 attempts" in listed.stdout
    assert three not in listed.stdout
    assert listed.stderr.splitlines()[-1].startswith("live: release ")
    refused = stack.run(
        "./scripts/jobs.sh", "retry", ids[one], ids[three], "999999999", check=False
    )
    assert refused.returncode == 1
    assert f"error: job {ids[three]} is succeeded, job 999999999 is unknown" in refused.stderr
    assert "RUNBOOK: docs/runbook.md#failed-jobs" in refused.stderr
    assert job(stack, one)["status"] == "failed", "the refused command changed a job"
    assert stack.run("./scripts/jobs.sh", "retry", check=False).returncode == 2
    assert (
        stack.run(
            "./scripts/jobs.sh", "discard", "--all", "--task", "no.such", check=False
        ).returncode
        == 1
    )
    done = stack.run("./scripts/jobs.sh", "retry", ids[one])
    assert f"1 returned to the queue: {ids[one]}" in done.stdout
    wait_until(lambda: job(stack, one)["status"] == "succeeded", 60, "the job has succeeded")
    done = stack.run("./scripts/jobs.sh", "discard", "--all", "--task", "exports.write")
    assert f"1 discarded: {ids[two]}" in done.stdout
    assert stack.run("./scripts/jobs.sh", "list").stdout.splitlines() == ["no job has failed"]


def test_a_run_that_succeeds_ends_earlier_failures_of_its_task(stack: Stack) -> None:
    """A periodic task that failed during an outage must not keep status.sh red afterwards."""
    columns = "insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args, status)"
    row = "('{0}', '{0}', {1}, '{{\"timestamp\": 0}}', '{2}')"
    failed = (
        "select count(*) from procrastinate_jobs"
        " where status = 'failed' and args->>'timestamp' = '0'"
    )
    task = "exports.expire"
    earlier = row.format(task, f"'{task}'", "failed")
    other = row.format("jobs.prune", "'jobs.prune'", "failed")
    try:
        stack.sql(f"{columns} values {earlier}, {other}")
        assert stack.sql(failed) == "2"
        waiting = row.format(task, f"'{task}'", "todo")
        stack.sql(f"{columns} values {waiting} on conflict do nothing")  # or the clock's job waits
        wait_until(lambda: stack.sql(failed) == "1", 60, "a later run deletes the failed one")
    finally:
        stack.sql("delete from procrastinate_jobs where args->>'timestamp' = '0'")


def test_prometheus_is_told_of_the_queue_and_of_each_attempt(stack: Stack) -> None:
    def told() -> dict[str, float]:
        return stack.metrics_of("worker-blue", 9100)

    count = 'slipway_job_duration_seconds_count{outcome="succeeded",task="exports.write"}'
    waiting, failed = (
        f'slipway_queue_jobs{{queue="no.such",state="{state}"}}' for state in ("waiting", "failed")
    )
    oldest = 'slipway_queue_oldest_seconds{queue="no.such"}'
    exports = Exports(stack)
    before = told()
    ask(exports, 5)
    exports.wait_until_done(120)
    # In a queue without a worker: one job waits, another has failed.
    one_of_each = "('no.such', 'waits', 'todo'), ('no.such', 'fails', 'failed')"
    stack.sql(
        f"insert into procrastinate_jobs (queue_name, task_name, status) values {one_of_each}"
    )
    try:
        wait_until(lambda: told().get(oldest, 0) > 0, 60, "the queue is shown")
        shown = told()
    finally:
        stack.sql("delete from procrastinate_jobs where queue_name = 'no.such'")
    assert (shown[waiting], shown[failed]) == (1, 1)
    assert shown['slipway_queue_jobs{queue="exports.write",state="running"}'] == 0
    assert shown['slipway_queue_oldest_seconds{queue="exports.write"}'] == 0
    assert told()[count] == before.get(count, 0) + 5
    assert told()['slipway_jobs_running{task="exports.write"}'] == 0


def test_a_queue_that_was_empty_and_grows_at_once_is_worked_off(stack: Stack) -> None:
    """With the plan that Postgres keeps from the empty queue, one fetch would take minutes."""
    fetch = "procrastinate_fetch_job_v2(array['many']::varchar[], null)"
    statements = (
        "vacuum procrastinate_jobs",
        f"do $$ begin for _ in 1..20 loop perform {fetch}; end loop; end $$",
        "insert into procrastinate_jobs (queue_name, task_name)"
        " select 'many', 'many' from generate_series(1, 30000)",
        f"select status from {fetch}",
    )
    psql = "psql --quiet -tAX --username=postgres --host=/tmp --set=ON_ERROR_STOP=1"
    script = f"""
        set -eu -o pipefail
        {psql} --command 'drop database if exists queue' --command 'create database queue'
        pg_dump --username=postgres --host=/tmp --schema-only slipway |
            {psql} --dbname=queue >/dev/null
        {psql} --dbname=queue {" ".join(f"--command {shlex.quote(each)}" for each in statements)}
        {psql} --command 'drop database queue'
    """
    execute = ["exec", "--no-TTY", "--env", f"PGOPTIONS={QUEUE_OPTIONS}", "postgres"]
    assert stack.compose(*execute, "bash", "-c", script).strip() == "doing"


@pytest.mark.counts_losses
def test_jobs_need_no_redis(stack: Stack) -> None:
    """Jobs run even without the volume of Redis (fault 13)."""
    stack.compose("rm", "--stop", "--force", "redis")
    stack.run("docker", "volume", "rm", f"{stack.project}_redis")
    try:
        with ledger_kept(stack):
            exports = Exports(stack)
            ask(exports, 5)
            exports.wait_until_done(120)
            assert exports.failures == []
            assert exports.lost_and_doubled() == ([], [])
    finally:
        stack.compose("up", "--detach", "--no-deps", "--wait", "redis")


EXPIRE = """
import asyncio
from api.storing.database import Database
from api.configuring.settings import WorkerSettings, load_settings
from worker.exports.service import expire_exports
asyncio.run(expire_exports(Database(load_settings(WorkerSettings))))
"""


def test_exports_that_are_over_are_deleted_however_many_there_are(stack: Stack) -> None:
    owner = "(select id from users limit 1)"
    columns = "insert into exports (id, owner_id, status, created_at, expires_at)"
    over = "generate_series(1, 45) returning id"
    past = "now() - interval '2 hours'"
    made = (
        f"{columns} select gen_random_uuid(), {owner}, 'finished', {past}, now() - interval '1 "
        f"minute' from {over}"
    )
    stack.sql(
        f"with made as ({made}) insert into export_chunks (export_id, seq, content) select "
        "id, 0, 'a' from made"
    )
    fresh, stuck = (
        stack.sql(
            f"{columns} values (gen_random_uuid(), {owner}, '{status}', {past}, {ends}) "
            "returning id"
        )
        for status, ends in (("finished", "now() + interval '1 hour'"), ("pending", "null"))
    )
    stack.sql(f"insert into export_chunks (export_id, seq, content) values ('{fresh}', 0, 'a')")
    stack.compose("exec", "--no-TTY", "worker-blue", "python", "-c", EXPIRE)
    assert (
        stack.sql("select count(*) from exports where status = 'finished' and expires_at < now()")
        == "0"
    )
    assert int(stack.sql("select count(*) from exports where status = 'expired'")) >= 45
    left = (
        "select count(*) from export_chunks c join exports e on e.id = c.export_id where "
        "e.status = 'expired'"
    )
    assert stack.sql(left) == "0"
    assert stack.sql(f"select status from exports where id = '{stuck}'") == "failed"
    assert stack.sql(f"select count(*) from export_chunks where export_id = '{fresh}'") == "1"
    stack.sql(f"delete from exports where id in ('{fresh}', '{stuck}') or status = 'expired'")
