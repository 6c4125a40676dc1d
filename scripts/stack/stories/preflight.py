"""Everything that can be known to go wrong before anything is touched; all faults are named at once."""

import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine
from stack.config.project import SECRETS, Project
from stack.failure import Failure
from stack.runner import Runner
from stack.stories import edge, observation, rollback, slots

# Chosen: an image of 250 MB with its build cache, and room for a day's WAL and logs.
FREE_DISK_BYTES = 2 * 1000**3
# Measured: a slot takes about 200 MB idle; half as much again for its first requests.
FREE_MEMORY_BYTES = 300 * 1024**2
CERTIFICATE_DAYS = 3
# Of Postgres' max_connections: the superuser's reserve, migrate, and an operator.
OTHER_CONNECTIONS = 3 + 2 + 2
# A worker holds one per job, three for its queue and one to listen (worker/loop.py).
WORKER_EXTRA_CONNECTIONS = 4


def check(runner: Runner, project: Project) -> list[str]:
    """Return warnings; raise Failure with every fault found.

    Raises:
        Failure: before any effect.
    """
    room = _room(runner, project)
    faults = [*_secrets(project), *_compose(runner), *room, *_connections(runner, project)]
    warnings = [*_certificate(runner, project, faults), *_way_back(runner, project)]
    if faults:
        entry = "disk-or-memory-below-the-floor" if room else "boot-refused-by-the-configuration"
        raise Failure("; ".join(faults), hints=["nothing was touched"], runbook=entry)
    edge.check(runner, project, project.root / "nginx")
    return warnings


def _way_back(runner: Runner, project: Project) -> list[str]:
    try:
        rollback.previous(runner, project, slots.look(runner, project))
    except Failure as failure:
        return [f"warning: {failure.observation}"]
    return []


def _secrets(project: Project) -> list[str]:
    faults = []
    for name in SECRETS:
        path = project.secrets / name
        if not path.exists() or not path.read_text(encoding="utf-8").strip():
            faults.append(f"the secret {path} is missing or empty")
        elif len(path.read_text(encoding="utf-8").strip()) < 16:
            faults.append(f"the secret {path} is shorter than 16 characters")
    return faults


def _compose(runner: Runner) -> list[str]:
    result = runner.read(engine.compose_argv("config", "--quiet"))
    return [] if result.code == 0 else [f"Compose refuses the files: {result.err.strip()}"]


def _room(runner: Runner, project: Project) -> list[str]:
    root = Path(runner.read(engine.ROOT_DIRECTORY).out.strip() or "/var/lib/docker")
    faults = []
    for path in {next(p for p in (folder, *folder.parents) if p.exists()) for folder in (root, project.state)}:
        free = shutil.disk_usage(path).free
        floor = int(project.values.get("FREE_DISK_FLOOR_BYTES") or FREE_DISK_BYTES)
        if free < floor:
            old = f"docker image ls {project.image}"
            faults.append(
                f"{free / 1e9:.1f} GB are free at {path}, {floor / 1e9:.1f} GB are needed: delete old releases ({old})"
            )
    free = available_memory_bytes(Path("/proc/meminfo").read_text(encoding="ascii"))
    floor = int(project.values.get("FREE_MEMORY_FLOOR_BYTES") or FREE_MEMORY_BYTES)
    if free < floor:
        faults.append(f"{free // 1024**2} MB of memory are free, a second slot needs {floor // 1024**2} MB")
    return faults


def available_memory_bytes(meminfo: str) -> int:
    """Return MemAvailable and free swap of /proc/meminfo, in bytes."""
    values = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.splitlines() if line.endswith("kB")}
    return (values["MemAvailable"] + values.get("SwapFree", 0)) * 1024


def connection_budget(project: Project) -> int:
    """Return how many connections both slots, migrate and an operator may hold at once."""
    processes = int(project.values.get("API_PROCESSES") or 0)
    processes = processes or max(2, math.ceil(float(project.values.get("API_CPUS") or 2)))
    pool = int(project.values.get("DATABASE_POOL_SIZE") or 5)
    worker = int(project.values.get("WORKER_CONCURRENCY") or 4) + WORKER_EXTRA_CONNECTIONS
    return 2 * (processes * pool + worker) + OTHER_CONNECTIONS


def _connections(runner: Runner, project: Project) -> list[str]:
    answer = observation.sql(runner, "show max_connections")
    if answer.code != 0:
        return [f"Postgres does not answer: {answer.err.strip()}"]
    most, needed = int(answer.out.strip()), connection_budget(project)
    if needed <= most:
        return []
    return [f"both slots may open {needed} connections, Postgres takes {most}: lower DATABASE_POOL_SIZE"]


def _certificate(runner: Runner, project: Project, faults: list[str]) -> list[str]:
    answer = observation.ask(runner, project, "/livez")
    if not answer.expires:
        return [f"the front door shows no certificate: {answer.error}"]
    end = datetime.strptime(answer.expires, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    days = (end - datetime.now(UTC)).days
    if days < CERTIFICATE_DAYS:
        faults.append(f"the certificate ends in {days} days")
    return []
