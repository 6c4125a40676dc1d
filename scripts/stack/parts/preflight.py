"""Checks a deploy for known faults before the first effect, and names all faults at once."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine
from stack.config import service
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import applied, configuration, deployments, edge, judgement, observation, slots
from stack.rules import connections
from stack.runner import Runner

CERTIFICATE_DAYS = 3
LIMITS = (
    "select current_setting('max_connections'), current_setting('superuser_reserved_connections')"
)


def check(runner: Runner, project: Project) -> list[str]:
    """Return warnings; raise Failure with every fault found.

    Raises:
        Failure: before any effect.
    """
    applied.check_front_door(project)
    findings = judgement.list_findings(runner, project, observation.live_slot(runner, project))
    critical = [line for line in findings if line.startswith(judgement.CRITICAL)]
    faults = [judgement.shorten(line) for line in critical]
    warnings = [judgement.shorten(line) for line in findings if line not in critical]
    lack_of_room = _check_room(runner, project)
    faults += [*lack_of_room, *_check_connections(runner, project)]
    warnings += _check_certificate(runner, project, faults)
    warnings += _check_rollback(runner, project)
    if faults:
        entry = "boot-refused-by-the-configuration"
        if lack_of_room:
            entry = "disk-or-memory-below-the-floor"
        evidence = "\n".join(sorted(findings))
        raise Failure(
            "; ".join(faults), hints=["nothing was touched"], runbook=entry, evidence=evidence
        )
    service.load(project.root)
    # A reload of nginx would load it, and no request of the present host would succeed.
    configuration.check_certificate(runner, project)
    edge.check(runner, project, project.root / "nginx")
    return warnings


def _check_rollback(runner: Runner, project: Project) -> list[str]:
    try:
        deployments.before_live(runner, project, slots.look(runner, project))
    except Failure as failure:
        return [f"warning: {failure.observation}"]
    return []


def _check_room(runner: Runner, project: Project) -> list[str]:
    root = Path(runner.read(engine.ROOT_DIRECTORY).out.strip() or "/var/lib/docker")
    faults = []
    for path in {
        next(p for p in (folder, *folder.parents) if p.exists()) for folder in (root, project.state)
    }:
        free = shutil.disk_usage(path).free
        floor = project.free_disk_floor_bytes
        if free < floor:
            faults.append(
                f"{free / 1e9:.1f} GB are free at {path}, {floor / 1e9:.1f} GB are needed: "
                f"delete old releases (docker image ls {project.image})"
            )
    free = available_memory_bytes(Path("/proc/meminfo").read_text(encoding="ascii"))
    floor = project.free_memory_floor_bytes
    if free < floor:
        faults.append(
            f"{free // 1024**2} MB of memory are free, a second slot needs {floor // 1024**2} MB"
        )
    return faults


def available_memory_bytes(meminfo: str) -> int:
    """Return MemAvailable and free swap of /proc/meminfo, in bytes."""
    values = {
        line.split(":")[0]: int(line.split()[1])
        for line in meminfo.splitlines()
        if line.endswith("kB")
    }
    return (values["MemAvailable"] + values.get("SwapFree", 0)) * 1024


def _check_connections(runner: Runner, project: Project) -> list[str]:
    """Compare the budget with the running server, which may not have read postgresql.conf yet."""
    answer = observation.sql(runner, LIMITS)
    if answer.code != 0:
        return [f"Postgres does not answer: {answer.err.strip()}"]
    most, reserved = map(int, answer.out.strip().split("|"))
    overdrawn = connections.fault(project, most, reserved)
    return [overdrawn] if overdrawn else []


def _check_certificate(runner: Runner, project: Project, faults: list[str]) -> list[str]:
    answer = observation.ask(runner, project, "/livez")
    if not answer.expires:
        return [f"the front door shows no certificate: {answer.error}"]
    end = datetime.strptime(answer.expires, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    days = (end - datetime.now(UTC)).days
    if days < CERTIFICATE_DAYS:
        faults.append(f"the certificate ends in {days} days")
    return []
