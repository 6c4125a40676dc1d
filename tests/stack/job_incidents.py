"""Brings about the runbook's incidents of jobs; their entries must end them."""

from collections.abc import Callable

from tests.stack.harness import Stack, wait_until

COLUMNS = "procrastinate_jobs (queue_name, task_name, args)"


def worker_gone(stack: Stack) -> None:
    """No worker runs, and exports are asked for."""
    stack.compose("stop", "worker-blue")
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        assert client.post("/v1/exports").status_code == 202
    assert stack.run("./scripts/status.sh", check=False).returncode == 1


def poison_job(stack: Stack) -> None:
    """A job that can never be done, and has failed twice."""
    poison = "'exports.write', 'exports.write', '{\"export_id\": \"no export has this id\"}'"
    job = stack.sql(f"insert into {COLUMNS} values ({poison}) returning id")
    tried = f"select attempts >= 2 from procrastinate_jobs where id = {job}"
    wait_until(lambda: stack.sql(tried) == "t", 30, "the job has failed twice")


JOB_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "jobs-queued-but-not-taken": worker_gone,
    "a-job-fails-again-and-again": poison_job,
}
