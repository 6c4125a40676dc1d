"""A worker whose exports can be made harmful, and the runbook's incidents of jobs."""

import base64
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.stack.harness import Stack, wait_until
from tests.stack.settings import give_green_the_settings_of_blue, slot_settings

# A table maps the id of an export to its fault. Here the time limit of an export is two seconds,
# and `jobs.prune` runs every two seconds.
CODE = """
import asyncio, os, time
_held = []
_write_export = write_export

async def write_export(database, export_id, keep):
    async with database.read() as connection:
        statement = "select kind from poison where export_id = %s"
        found = await connection.exec_driver_sql(statement, (export_id,))
    kind = found.scalar_one_or_none()
    if kind == "raises":
        raise RuntimeError("poison")
    if kind == "takes long":
        await asyncio.sleep(3600)
    if kind == "blocks":
        await asyncio.sleep(0.5)
        time.sleep(3600)
    if kind == "kills":
        await asyncio.sleep(0.5)
        os._exit(9)
    if kind == "grows":
        _held.append(bytearray(b"x") * (150 << 20))
    if kind == "slow":
        await asyncio.sleep(1.5)
    await _write_export(database, export_id, keep)
"""
RECIPE = """
FROM {image}:blue
USER root
RUN echo {code} | base64 -d >> worker/exports/service.py \\
 && sed -i 's/limit_seconds=600/limit_seconds=2/' worker/exports/tasks.py \\
 && sed -i 's/17 \\* \\* \\* \\*/* * * * * *\\/2/' worker/jobs/tasks.py \\
 && python3 -m compileall -q -f --invalidation-mode unchecked-hash worker
USER 10001:10001
"""
TABLE = """
    drop table if exists poison;
    create table poison (export_id uuid primary key, kind text not null);
    grant select on poison to slipway;
"""


def build(stack: Stack) -> None:
    """Build the image of this worker for the idle slot."""
    give_green_the_settings_of_blue(stack)
    recipe = RECIPE.format(image=stack.image, code=base64.b64encode(CODE.encode()).decode())
    argv = ["docker", "build", "--quiet", "--tag", f"{stack.image}:green", "-"]
    subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True, timeout=120)


@contextmanager
def poisonable(stack: Stack) -> Iterator[None]:
    """Stop the live slot's worker during the block; the test starts this worker with `start`."""
    build(stack)
    stack.sql(TABLE)
    stack.compose("stop", "worker-blue")
    try:
        yield
    finally:
        stack.compose("rm", "--stop", "--force", "worker-green")
        stack.sql("drop table poison; delete from procrastinate_jobs where status = 'failed'")
        stack.compose("up", "--detach", "--no-deps", "--wait", "worker-blue")


def poison(stack: Stack, export: str, kind: str, *, attempts_left: int = 5) -> None:
    """Give a fault to an export that no worker has fetched yet."""
    left = (
        f"update procrastinate_jobs set attempts = {5 - attempts_left} where "
        f"args->>'export_id' = '{export}'"
    )
    stack.sql(f"insert into poison values ('{export}', '{kind}'); {left}")


def start(stack: Stack, setting: str = "") -> None:
    """Start the worker with a setting (KEY=VALUE); it may exit before it is healthy."""
    key, _, value = setting.partition("=")
    environment = {key: value} if key else {}
    argv = ["docker", "compose", "up", "--detach", "--no-deps", "worker-green"]
    # Compose reads a container's limits from the environment; the worker reads its slot's file.
    with slot_settings(stack, "green", **environment):
        stack.run(*argv, check=True, timeout=120, **environment)


def worker_gone(stack: Stack) -> None:
    """Stop every worker, and request exports."""
    stack.compose("stop", "worker-blue")
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        assert client.post("/v1/exports").status_code == 202
    assert stack.run("./scripts/status.sh", check=False).returncode == 1


def poison_job(stack: Stack) -> None:
    """A job that can never succeed and has failed twice."""
    values = "'exports.write', 'exports.write', '{\"export_id\": \"no export has this id\"}'"
    job = stack.sql(
        f"insert into procrastinate_jobs (queue_name, task_name, args) values ({values}) "
        "returning id"
    )
    tried = f"select attempts >= 2 from procrastinate_jobs where id = {job}"
    wait_until(lambda: stack.sql(tried) == "t", 60, "the job has failed twice")


JOB_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "jobs-queued-but-not-taken": worker_gone,
    "a-job-fails-again-and-again": poison_job,
}
