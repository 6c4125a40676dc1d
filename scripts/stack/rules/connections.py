"""The connection budget: how many connections to Postgres each process may open."""

import math
import re

from stack.config.project import Project

SLOTS = ("blue", "green")  # both run during a deploy and the rollback window
# Each worker process needs these in addition to one per job: three for its queue, one to listen,
# one for its metrics.
# Partner: QUEUE_CONNECTIONS in worker/loop.py
# Partner: METRICS_CONNECTIONS in worker/loop.py
WORKER_EXTRA = 3 + 1 + 1
# The other clients, by application_name. migrate: one guards the lock, one changes the schema.
# operator: psql and a dump at once. The health check and the scripts use the superuser's reserve.
OTHERS = {"slipway.migrate.none": 2, "operator": 2}
# Partner: MASTER_BYTES in api/server/gunicorn_conf.py; test_connection_budget.py compares the two
MASTER_BYTES = 64 * 1024**2
PROCESS_BYTES = 75 * 1024**2
LEAST_PROCESSES = 2


def api_processes(project: Project) -> int:
    """Return the number of API processes: API_PROCESSES, or one per core within API_MEMORY."""
    configured = project.api_processes
    if configured:
        return configured
    by_cpu = math.ceil(project.api_cpus)
    by_memory = (project.api_memory_bytes - MASTER_BYTES) // PROCESS_BYTES
    return max(LEAST_PROCESSES, min(by_cpu, by_memory))


def budget(project: Project) -> dict[str, int]:
    """Return the most connections that may be open at once, by application_name."""
    api = api_processes(project) * project.database_pool_size
    jobs = project.worker_concurrency
    worker = project.worker_processes * (jobs + WORKER_EXTRA)
    slots = {
        f"slipway.{service}.{slot}": n
        for slot in SLOTS
        for service, n in (("api", api), ("worker", worker))
    }
    return {**slots, **OTHERS}


def fault(project: Project, most: int, reserved: int) -> str:
    """Return the fault if the budget exceeds `most` less `reserved` connections, or nothing."""
    shares = budget(project)
    needed, left = sum(shares.values()), most - reserved
    if needed <= left:
        return ""
    processes, pool = api_processes(project), project.database_pool_size
    return (
        f"DATABASE_POOL_SIZE: all processes may open {needed} connections, "
        f"and Postgres takes {left} ({most} less {reserved} reserved): "
        f"each slot's API {processes} x {pool}, each worker {shares['slipway.worker.blue']}, "
        f"others {sum(OTHERS.values())}; "
        "lower DATABASE_POOL_SIZE, API_PROCESSES, WORKER_PROCESSES or WORKER_CONCURRENCY in .env, "
        "or raise max_connections in postgres/postgresql.conf"
    )


def read_limits(project: Project) -> tuple[int, int] | None:
    """Return max_connections and superuser_reserved_connections of the postgresql.conf here."""
    file = project.root / "postgres" / "postgresql.conf"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    values = dict(
        re.findall(
            r"^(max_connections|superuser_reserved_connections)\s*=\s*(\d+)", text, re.MULTILINE
        )
    )
    return (
        (int(values["max_connections"]), int(values["superuser_reserved_connections"]))
        if len(values) == 2
        else None
    )
