"""Compares the settings of each container with `.env`; lists the settings that wait.

`STATE_DIR/applied.json` keeps for each service the values that its container was created with, its
definition (parts/definitions.py), and how long the last replacement took. The scripts compare
`.env` with that file. A difference alone replaces no container: `up.sh --apply` does.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from stack.config import keys
from stack.config.keys import KEYS
from stack.config.project import Project
from stack.parts import containers, definitions, edge_settings, slot_files
from stack.parts.inventory import Inventory
from stack.runner import Runner

# In the order in which they start.
SERVICES = ("postgres", "redis", "backup", "counter", "nginx")
# The seconds of a replacement before the first measurement on this host. Chosen: twice the time on
# an idle machine with two cores.
ESTIMATES: Mapping[str, float] = {
    "postgres": 4,
    "redis": 2,
    "backup": 4,
    "counter": 2,
    "nginx": 4,
}
OUTAGES: Mapping[str, str] = {
    "postgres": "of 503",
    "redis": "without rate limits of users, cache and console",
    "backup": "without backups; no request is affected",
    "counter": "without counts of requests; no request is affected",
    "nginx": "in which connections are refused",
}
DEFINITION = "its definition (compose files, mounted files or image)"


@dataclass(frozen=True)
class Entry:
    """The facts that the scripts keep about a service's container.

    Attributes:
        settings: the effective values of its keys.
        files: the value of COMPOSE_FILE.
        definition: the hash of its definition; empty if it is not known.
        seconds: the duration of its last replacement; 0 if there was none on this host.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    files: str = ""
    definition: str = ""
    seconds: float = 0.0


def _file(project: Project) -> Path:
    return project.state / "applied.json"


def read(project: Project) -> dict[str, Entry]:
    """Return the entry of each service; empty if the file is missing or cannot be read."""
    try:
        return dict(_entries_in(_file(project).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@lru_cache(maxsize=8)  # each question to the front door reads the file
def _entries_in(text: str) -> Mapping[str, Entry]:
    return {name: Entry(**facts) for name, facts in json.loads(text).items()}


def _write(runner: Runner, project: Project, entries: Mapping[str, Entry]) -> None:
    if runner.is_dry or entries == read(project):
        return
    content = {name: asdict(entry) for name, entry in sorted(entries.items())}
    runner.make_directory(project.state, 0o750)
    runner.write(_file(project), json.dumps(content, indent=1) + "\n", 0o640)


def wanted(project: Project, service: str) -> dict[str, str]:
    """Return the effective values that `.env` gives to a new container of a service."""
    ports = {key: str(project.port(key)) for key in ("HTTP_PORT", "HTTPS_PORT")}
    return {key: ports.get(key) or project.setting(key) for key in keys.of_container(service)}


def keep(
    runner: Runner, project: Project, services: Iterable[str], seconds: float | None = None
) -> None:
    """Keep the values with which services were just created, and the seconds of a replacement."""
    names, entries = list(services), read(project)
    present = definitions.of_services(runner, project, names) if names else {}
    for name in names:
        former = entries.get(name, Entry())
        entries[name] = Entry(
            wanted(project, name),
            project.setting("COMPOSE_FILE"),
            present.get(name, ""),
            former.seconds if seconds is None else round(seconds, 1),
        )
    _write(runner, project, entries)


def note(runner: Runner, project: Project, service: str) -> None:
    """Write the values of a container that was just created, without the delay of `keep`."""
    entries = read(project)
    seconds = entries.get(service, Entry()).seconds
    files = project.setting("COMPOSE_FILE")
    entries[service] = Entry(wanted(project, service), files, seconds=seconds)
    _write(runner, project, entries)


def put_back(runner: Runner, project: Project, service: str, entry: Entry) -> None:
    """Write the former entry of a service again."""
    _write(runner, project, {**read(project), service: entry})


def follow_containers(runner: Runner, project: Project, stock: Inventory) -> None:
    """Correct the file where a container has values that differ from it.

    An earlier version wrote no file, and a person may replace a container with Compose.
    """
    entries = read(project)
    for container in stock.running(project.name):
        name = container.service
        if name not in SERVICES:
            continue
        facts = containers.inspect(runner, container.name)
        if facts is None:
            continue
        former = entries.get(name)
        recorded = former.settings if former else {}
        given = containers.values_of(facts, wanted(project, name), recorded)
        if former is None:
            entries[name] = Entry(given, project.setting("COMPOSE_FILE"))
        elif differing(former.settings, given):
            entries[name] = replace(former, settings=given, definition="")
    _write(runner, project, entries)


def waiting(runner: Runner, project: Project) -> dict[str, list[str]]:
    """Return the services whose containers lack something, each with the keys that wait.

    A service without an entry is not listed.
    """
    entries = read(project)
    present = definitions.of_services(runner, project, entries) if entries else {}
    listed = {}
    for name in SERVICES:
        entry = entries.get(name)
        if entry is None:
            continue
        names = differing(entry.settings, wanted(project, name))
        is_known = entry.definition and name in present
        if not names and is_known and present[name] != entry.definition:
            names = [DEFINITION]
        if names:
            listed[name] = names
    return listed


def describe_waiting(runner: Runner, project: Project) -> list[str]:
    """Return a line for each service that waits: the keys, the command and its cost."""
    entries = read(project)
    return [
        f"not applied: {', '.join(names)}: ./scripts/up.sh --apply {name}, "
        + describe_cost(name, entries.get(name, Entry()).seconds)
        for name, names in waiting(runner, project).items()
    ]


def describe_cost(service: str, measured_seconds: float) -> str:
    """Return the duration of a service's replacement, and its effect on clients."""
    seconds = math.ceil(measured_seconds or ESTIMATES[service])
    source = "" if measured_seconds else " (an estimate: not measured on this host yet)"
    return f"about {seconds} s {OUTAGES[service]}{source}"


def front_door(project: Project) -> Project:
    """Return the project with the host name, the address and the port that nginx now uses."""
    name = edge_settings.installed_host(project) or project.host
    values = {edge_settings.HOST: name}
    entry = read(project).get("nginx")
    if entry is not None:
        names = ("HTTPS_BIND", "HTTPS_PORT")
        values |= {key: entry.settings[key] for key in names if key in entry.settings}
        values["COMPOSE_FILE"] = entry.files
    return replace(project, values={**project.values, **values})


def waiting_for_deploy(project: Project, slot: str) -> list[str]:
    """Return the service's keys whose values differ from the deployment in a slot."""
    values = slot_files.of_slot(project, slot)
    former = slot_files.settings_in(values)
    return differing(former, project.service_settings) if values else []


def describe_waiting_for_deploy(project: Project, slot: str) -> list[str]:
    """Return the line that names the keys of the service and of nginx which `deploy.sh` applies."""
    names = waiting_for_deploy(project, slot) + edge_settings.waiting(project)
    return [f"not applied: {', '.join(names)}: ./scripts/deploy.sh"] if names else []


def differing(former: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return the keys whose values differ; a key that a newer version added has its default."""
    return [key for key, value in present.items() if former.get(key, KEYS[key].default) != value]
