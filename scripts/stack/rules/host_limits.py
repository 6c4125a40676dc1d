"""Judges whether a host has the memory, engine and networks for `.env`. Knows no command."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import cast

from stack.config import forms, keys
from stack.config.project import Project
from stack.rules import connections
from stack.rules.findings import Finding

# 25.0 added `start_interval` of health checks.
OLDEST_ENGINE = (25, 0)
MB = 1024**2
# 80 MB for request bodies, and 64 MB for two processes.
# Partner: tmpfs in compose.yaml
LEAST_NGINX_BYTES = 144 * MB
# The engine's default address pools, each with the prefix length of its networks (documented by the
# engine: default-address-pools).
DEFAULT_POOLS = (
    *((f"172.{number}.0.0/16", 16) for number in (17, 18, 19)),
    *((f"172.{number}.0.0/14", 16) for number in (20, 24, 28)),
    ("192.168.0.0/16", 20),
)


def judge_memory(project: Project, total_bytes: int) -> list[Finding]:
    """Return findings for limits above the host's memory and swap, or too small for their use."""
    findings = [
        Finding(
            key,
            f"{project.setting(key)} is more than the {total_bytes // MB} MB of this host",
            f"set {key} lower in .env: above the host's memory it limits nothing",
        )
        for key in keys.of_form(forms.memory)
        if cast(int, project.typed(key)) > total_bytes
    ]
    processes = connections.api_processes(project)
    needed = connections.MASTER_BYTES + processes * connections.PROCESS_BYTES
    if project.api_memory_bytes < needed:
        findings.append(_too_small(project, "API_MEMORY", needed, f"{processes} processes"))
    if cast(int, project.typed("NGINX_MEMORY")) < LEAST_NGINX_BYTES:
        findings.append(_too_small(project, "NGINX_MEMORY", LEAST_NGINX_BYTES, "request bodies"))
    return findings


def _too_small(project: Project, key: str, needed: int, use: str) -> Finding:
    fault = f"{project.setting(key)} is less than the {needed // MB}m that {use} may need"
    return Finding(key, fault, f"set {key} in .env to {needed // MB}m or more", is_critical=False)


def total_memory_bytes(meminfo: str) -> int:
    """Return memory and swap of /proc/meminfo, in bytes."""
    values = {
        line.split(":")[0]: int(line.split()[1])
        for line in meminfo.splitlines()
        if line.endswith("kB")
    }
    return (values["MemTotal"] + values.get("SwapTotal", 0)) * 1024


def judge_engine(running: str, on_disk: str) -> list[Finding]:
    """Return a finding if the running engine is too old, whatever version is on disk."""
    version = _numbers(running)
    if version is None or version >= OLDEST_ENGINE:
        return []
    least = ".".join(map(str, OLDEST_ENGINE))
    disk = _numbers(on_disk)
    fix = f"upgrade the engine to {least} or newer, and restart it"
    if disk is not None and disk >= OLDEST_ENGINE:
        fix = (
            f"{on_disk} is installed and does not run yet: systemctl restart docker, "
            "which restarts every container of this host"
        )
    return [Finding("engine", f"{running} runs, which is older than {least}", fix, "site-down")]


def _numbers(version: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def free_networks(pools: Iterable[tuple[str, int]], used: Iterable[str]) -> int:
    """Return how many more networks the engine can create.

    Args:
        pools: each pool with the prefix length of its networks.
        used: the subnets of all present networks.
    """
    taken = [subnet for text in used if (subnet := _subnet(text)) and subnet.version == 4]
    candidates = [
        subnet
        for pool, prefix in pools
        if (network := ip_network(pool)).version == 4
        for subnet in network.subnets(new_prefix=prefix)
    ]
    return sum(not any(subnet.overlaps(other) for other in taken) for subnet in candidates)


def _subnet(text: str) -> IPv4Network | IPv6Network | None:
    """Return a subnet; None for any other text, as of a network without a subnet."""
    try:
        return ip_network(text.strip())
    except ValueError:
        return None


def judge_networks(free: int, missing: list[str]) -> list[Finding]:
    """Return a finding if the engine has no addresses left for the networks of the stack."""
    if free >= len(missing):
        return []
    return [
        Finding(
            "networks",
            f"the engine has addresses for {free} more networks, and {', '.join(missing)} "
            "do not exist yet",
            "docker network prune removes unused networks; or add default-address-pools to "
            "/etc/docker/daemon.json",
            "site-down",
        )
    ]


def judge_names(project: str, services: Iterable[str], owners: Mapping[str, str]) -> list[Finding]:
    """Return findings for containers of others with the names of this stack's containers.

    Args:
        project: the name of the stack.
        services: its services.
        owners: the project of each container on this host; empty if Compose did not create it.
    """
    return [
        Finding(
            "containers",
            f"{name} has the name of a container of this stack, and does not belong to it",
            f"docker rename {name} other-{name}",
            "site-down",
        )
        for name in (f"{project}-{service}-1" for service in services)
        if name in owners and owners[name] != project
    ]
