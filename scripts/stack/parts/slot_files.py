"""The files of the slots: each has the number and the settings of the slot's deployment.

Compose gives `STATE_DIR/slots/<slot>.env` instead of `.env` to the containers of a slot, so that an
edit of `.env` reaches no slot before a deploy.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from stack.config import environment, keys
from stack.config.project import Project
from stack.failure import Failure

NUMBER, RELEASE = "SLIPWAY_DEPLOYMENT", "SLIPWAY_RELEASE"
HOSTS = "ALLOWED_HOSTS"  # the service's name for SLIPWAY_HOST, which is nginx' key
HEAD = "# The scripts write this file at each deploy and rollback; edit .env instead.\n"


def path_of(project: Project, slot: str) -> Path:
    """Return the file of a slot."""
    return project.state / "slots" / f"{slot}.env"


def content(values: Mapping[str, str]) -> str:
    """Return the text of such a file, with single quotes, which every reader parses alike."""
    return HEAD + "".join(f"{key}='{value}'\n" for key, value in values.items())


def read(file: Path) -> dict[str, str]:
    """Return the values of such a file; empty if it is missing or unreadable."""
    try:
        lines = environment.parse(environment.decode(file.read_bytes()))
    except (OSError, Failure):
        return {}
    return {line.key: line.value for line in lines}


def of_slot(project: Project, slot: str) -> dict[str, str]:
    """Return the values of a slot's file."""
    return read(path_of(project, slot))


def number_of(values: Mapping[str, str]) -> int:
    """Return the number of the deployment in the values of a file; 0 if there is none."""
    text = values.get(NUMBER, "")
    return int(text) if text.isdecimal() else 0


def wanted(project: Project) -> dict[str, str]:
    """Return the settings that `.env` gives to the next deployment, under the service's names."""
    return {HOSTS: project.host, **project.service_settings}


def settings_in(values: Mapping[str, str]) -> dict[str, str]:
    """Return the service's keys of a file, each with its default where it is empty or missing."""
    return {
        key: values.get(key) or keys.KEYS[key].default for key in keys.of_scope(keys.Scope.SERVICE)
    }


def limits_of(project: Project, services: Iterable[str]) -> dict[str, str]:
    """Return the limits in the file of these services' slot that differ from `.env`.

    Compose reads limits from its own environment, and the other settings of a slot from its file.
    """
    slots = {name.rpartition("-")[2] for name in services if name.startswith(("api-", "worker-"))}
    given = {key: value for slot in slots for key, value in of_slot(project, slot).items()}
    limits = {key: given[key] for key in keys.LIMITS if given.get(key)}
    return {
        key: value
        for key, value in limits.items()
        if value != project.setting(key) and _is_possible(key, value)
    }


def _is_possible(key: str, value: str) -> bool:
    """Whether the engine accepts a limit: it refuses more CPUs than the host now has."""
    try:
        limit = keys.KEYS[key].form(value)
    except ValueError:
        return False  # a person edited the file
    return not isinstance(limit, float) or limit <= (os.cpu_count() or 1)
