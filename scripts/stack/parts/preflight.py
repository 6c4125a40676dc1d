"""Judges the wanted state before the first effect, and names all faults at once.

All commands that change or check the stack share `judge`; `check` adds a deploy's own needs.
"""

import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stack.commands import engine
from stack.config import service
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import (
    configuration,
    database,
    deployments,
    edge,
    edge_settings,
    images,
    judgement,
    machine,
    mounted_files,
    observation,
    ports,
    slots,
    volume_owner,
)
from stack.parts.applied import SERVICES
from stack.rules import connections, findings, host_limits
from stack.rules.findings import Finding
from stack.runner import Runner

CERTIFICATE_DAYS = 3
LIMITS = (
    "select current_setting('max_connections'), current_setting('superuser_reserved_connections')"
)
ROOM = "disk-or-memory-below-the-floor"
MB = 1024**2
NETWORKS = ("edge", "data", "egress")


@dataclass(frozen=True)
class Needs:
    """The parts of the wanted state that a command is about to use.

    Attributes:
        base_images: the command builds from the base images or runs them.
        servers: the command replaces Postgres or Redis if it is asked to.
        certificate: the command makes nginx read the certificate.
        ports: the command starts a container of nginx.
        room: the command starts a second slot.
    """

    base_images: bool = False
    servers: bool = False
    certificate: bool = False
    ports: bool = False
    room: bool = False


EVERYTHING = Needs(base_images=True, servers=True, certificate=True, ports=True)
DEPLOY = Needs(base_images=True, certificate=True, room=True)


def judge(runner: Runner, project: Project, needs: Needs) -> list[Finding]:
    """Return the faults of `.env`, the checkout and the host; changes nothing.

    A fault in a part that the command does not use is only a warning.
    """
    has_bases = [*_judge_bases(runner, project)]
    listed = [
        *machine.judge_engine(runner),
        *mounted_files.judge(project),
        *host_limits.judge_memory(project, host_limits.total_memory_bytes(_meminfo())),
        *_judge_networks(runner, project),
        *_judge_names(runner, project),
        *_lowered(ports.judge(runner, project), is_needed=needs.ports),
        *_lowered(has_bases, is_needed=needs.base_images),
        *_lowered(_judge_servers(runner, project), is_needed=needs.servers),
        *_lowered(_judge_disk(runner, project), is_needed=needs.room),
        # Free memory changes from one moment to the next.
        *(_judge_free_memory(project) if needs.room else []),
    ]
    if not has_bases and project.certificate.exists() and not runner.is_dry:
        certificate = configuration.judge_certificate(runner, project)
        listed += _lowered(certificate, is_needed=needs.certificate)
    return listed


def prepare(
    runner: Runner, project: Project, needs: Needs, effect: str = findings.UNTOUCHED
) -> list[str]:
    """Restore the modes that a umask removed; return the warnings of `judge`.

    Raises:
        Failure: with every critical finding, before any effect.
    """
    warnings = findings.refuse(judge(runner, project, needs), effect)
    opened = mounted_files.open_modes(runner, project)
    return [
        *([f"opened {', '.join(opened)} to the containers' users"] if opened else []),
        *warnings,
    ]


def _lowered(listed: list[Finding], *, is_needed: bool) -> list[Finding]:
    return listed if is_needed else [replace(each, is_critical=False) for each in listed]


def _judge_networks(runner: Runner, project: Project) -> list[Finding]:
    names = runner.read(engine.LIST_NETWORKS).out.split()
    missing = [name for name in NETWORKS if f"{project.name}_{name}" not in names]
    if not names or not missing:
        return []
    pools = _pools(runner.read(engine.ADDRESS_POOLS).out)
    used = runner.read(engine.inspect_networks(names)).out.splitlines()
    return host_limits.judge_networks(host_limits.free_networks(pools, used), missing)


def _pools(answer: str) -> list[tuple[str, int]]:
    """Return the engine's configured address pools, or else its default pools."""
    try:
        listed = [(str(each["Base"]), int(each["Size"])) for each in json.loads(answer) or ()]
    except (ValueError, KeyError, TypeError):
        listed = []
    return listed or list(host_limits.DEFAULT_POOLS)


def _judge_names(runner: Runner, project: Project) -> list[Finding]:
    lines = runner.read(engine.LIST_NAMES).out.splitlines()
    owners = {name: owner for name, _, owner in (line.partition("\t") for line in lines)}
    services = [
        *SERVICES,
        *(name for slot in observation.SLOTS for name in engine.slot_services(slot)),
    ]
    return host_limits.judge_names(project.name, services, owners)


def _judge_bases(runner: Runner, project: Project) -> list[Finding]:
    """Return a finding for each missing image that the build or test of a release needs."""
    needed = {"PYTHON_IMAGE": project.base("python"), "NGINX_IMAGE": project.nginx_image}
    return [
        Finding(
            key,
            f"{image or 'no base image is chosen, and it'} is not on this host",
            "./scripts/up.sh provides it",
        )
        for key, image in needed.items()
        if not images.has_image(runner, image)
    ]


def _judge_servers(runner: Runner, project: Project) -> list[Finding]:
    """Return the images of `.env` that could not read the data of the present servers.

    Only an image that a container does not have yet is asked: to ask takes a container for each.
    """
    stores = volume_owner.changed(project)
    listed = volume_owner.judge(runner, project, stores)
    if volume_owner.POSTGRES in stores:
        listed += database.judge_version(runner, project)
    return listed


def check(runner: Runner, project: Project) -> list[str]:
    """Return warnings; raise Failure with every fault found.

    Raises:
        Failure: before any effect.
    """
    lines = judgement.list_findings(runner, project, observation.live_slot(runner, project))
    critical = [line for line in lines if line.startswith(findings.CRITICAL)]
    listed = judge(runner, project, DEPLOY)
    faults = [judgement.shorten(line) for line in [*critical, *_critical(listed)]]
    faults += _check_connections(runner, project)
    warnings = [judgement.shorten(str(each)) for each in listed if not each.is_critical]
    warnings += [judgement.shorten(line) for line in lines if line not in critical]
    warnings += _check_certificate(runner, project, faults)
    warnings += _check_rollback(runner, project)
    if faults:
        entries = [each.runbook for each in listed if each.is_critical]
        entry = ROOM if ROOM in entries else [*entries, Finding.runbook][0]
        raise Failure(
            "; ".join(faults),
            hints=["nothing was touched"],
            runbook=entry,
            evidence="\n".join(sorted([*lines, *map(str, listed)])),
        )
    mounted_files.open_modes(runner, project)
    locations = edge_settings.locations_of(service.load(project.root))
    files = edge_settings.wanted(project, locations)
    edge.check(runner, project, project.root / "nginx", files)
    return warnings


def _critical(listed: list[Finding]) -> list[str]:
    return [str(each) for each in listed if each.is_critical]


def _check_rollback(runner: Runner, project: Project) -> list[str]:
    try:
        deployments.before_live(runner, project, slots.look(runner, project))
    except Failure as failure:
        return [f"warning: {failure.observation}"]
    return []


def _judge_disk(runner: Runner, project: Project) -> list[Finding]:
    """Return the disks below the floor of a second slot."""
    root = Path(runner.read(engine.ROOT_DIRECTORY).out.strip() or "/var/lib/docker")
    listed = []
    folders = (root, project.state)
    paths = [next(p for p in (folder, *folder.parents) if p.exists()) for folder in folders]
    for path in dict.fromkeys(paths):  # in this order in each run
        free = shutil.disk_usage(path).free
        floor = project.free_disk_floor_bytes
        if free < floor:
            fault = (
                f"{free / 1e9:.1f} GB are free at {path}, {floor / 1e9:.1f} GB are needed: "
                f"delete old releases (docker image ls {project.image})"
            )
            fix = "or lower FREE_DISK_FLOOR_BYTES in .env"
            listed.append(Finding("disk", fault, fix, ROOM))
    return listed


def _judge_free_memory(project: Project) -> list[Finding]:
    free = available_memory_bytes(_meminfo())
    floor = project.free_memory_floor_bytes
    if free >= floor:
        return []
    fault = f"{free // MB} MB of memory are free, a second slot needs {floor // MB} MB"
    return [Finding("memory", fault, "stop other programs of this host", ROOM)]


def _meminfo() -> str:
    return Path("/proc/meminfo").read_text(encoding="ascii")


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
