"""The keys of `.env` that wait for a command: those that `up.sh` applies, and the service's."""

from collections.abc import Mapping
from pathlib import Path

from stack.config.keys import KEYS, Scope
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import slot_files
from stack.runner import Runner

# A reload or a new container applies them; both are the work of up.sh.
APPLIED_BY_UP = tuple(
    name for name, key in KEYS.items() if key.scope in {Scope.NGINX, Scope.DATA, Scope.BACKUP}
)
# By these a command asks the front door.
FRONT_DOOR = ("SLIPWAY_HOST", "HTTPS_BIND", "HTTPS_PORT")
HEAD = "# What up.sh applied last; the scripts compare .env with it.\n"


def _file(project: Project) -> Path:
    return project.state / "applied.env"


def _wanted(project: Project) -> dict[str, str]:
    return {key: project.setting(key) for key in APPLIED_BY_UP}


def keep(runner: Runner, project: Project) -> None:
    """Keep the values that `up.sh` has just applied."""
    text = HEAD + "".join(f"{key}='{value}'\n" for key, value in _wanted(project).items())
    file = _file(project)
    if not runner.is_dry and (not file.exists() or file.read_text(encoding="utf-8") != text):
        runner.write(file, text, 0o600)


def waiting_for_up(project: Project) -> list[str]:
    """Return the keys of nginx, the data and backups that `up.sh` has not applied yet.

    Without the file no `up.sh` of this version ran, and nothing is known.
    """
    former = slot_files.read(_file(project))
    return _differing(former, _wanted(project)) if former else []


def check_front_door(project: Project) -> None:
    """Refuse a command that asks the front door where nginx does not listen yet.

    Raises:
        Failure: before any effect, if a key of FRONT_DOOR waits for `up.sh`.
    """
    waiting = [key for key in FRONT_DOOR if key in waiting_for_up(project)]
    if waiting:
        raise Failure(
            f"nginx does not have {', '.join(waiting)} of .env yet, and only the front door shows "
            "what is live",
            hints=[
                "./scripts/up.sh applies the change",
                f"or write the former value into .env: {_file(project)} has it",
                "nothing was touched",
            ],
            runbook="boot-refused-by-the-configuration",
        )


def waiting_for_deploy(project: Project, slot: str) -> list[str]:
    """Return the service's keys that differ from those of the deployment in a slot."""
    values = slot_files.of_slot(project, slot)
    former = slot_files.settings_in(values)
    return _differing(former, project.service_settings) if values else []


def _differing(former: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    return [key for key, value in wanted.items() if former.get(key, KEYS[key].default) != value]


def describe(names: list[str], command: str) -> list[str]:
    """Return the line that names the keys and the command that applies them, if there are any."""
    return [f"not applied: {', '.join(names)}: {command}"] if names else []
