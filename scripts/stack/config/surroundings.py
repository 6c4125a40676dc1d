"""Refuses variables of the shell that would mislead a command, or hides them from it.

REMOVED names the variables that child processes do not get, and why. The shell may override the
keys of `.env`, except those that identify the stack (keys.IDENTITY).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.config.keys import IDENTITY, SET_BY_SCRIPTS
from stack.failure import Failure

RUNBOOK = "boot-refused-by-the-configuration"
# With these variables, git would read another repository or follow other rules. git sets some of
# them for its hooks.
GIT_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)
# A prefix ends with *.
REMOVED: Mapping[str, str] = {
    "COMPOSE_*": "Compose would use other profiles, files, parallelism or orphans than the scripts",
    **dict.fromkeys(
        GIT_VARIABLES,
        "git sets them for a hook, and a release would be named after another repository",
    ),
    "PYTHONHOME": "a Python that lacks its own library starts no script",
    "PYTHONSTARTUP": "Python would run code that no script names",
    "CDPATH": "cd would go to another folder",
    **dict.fromkeys(SET_BY_SCRIPTS, "the scripts set it, for single commands"),
}
KEPT = (
    "COMPOSE_ANSI",  # how Compose draws
    "COMPOSE_PROGRESS",
    "COMPOSE_PROJECT_NAME",  # keys of .env, which `refuse` compares
    "COMPOSE_FILE",
)
ENGINE_HINT = "the stack's ports, files and sockets are those of this machine"


def of_children(variables: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return the environment for the commands of a script that runs in a directory.

    Compose takes the project's directory from PWD. If PWD were a link to it, the paths of all
    mounts would differ, and Compose would replace all containers.
    """
    # (!) With an empty COMPOSE_FILE, Compose tries to read the folder as a file.
    kept = {
        key: value
        for key, value in variables.items()
        if (key in KEPT and value) or not _is_removed(key)
    }
    return {**kept, "PWD": directory}


def _is_removed(key: str) -> bool:
    return any(
        key.startswith(name.removesuffix("*")) if name.endswith("*") else key == name
        for name in REMOVED
    )


def refuse(written: Mapping[str, str], variables: Mapping[str, str]) -> None:
    """Refuse variables that name another stack than `.env` does, or another machine.

    Args:
        written: the values of `.env`.
        variables: the process environment.

    Raises:
        Failure: naming them.
    """
    # With an empty STATE_DIR, no start has completed the file yet, and an empty value is no choice.
    is_filled_in = bool(written.get("STATE_DIR"))
    contrary = [
        key
        for key, default in IDENTITY.items()
        if key in variables
        and (is_filled_in or written.get(key))
        and (variables[key] or default) != (written.get(key) or default)
    ]
    faults = [f"{key} in the environment is not that of .env" for key in contrary]
    hints = [f"unset {' '.join(contrary)}: a second stack has a checkout and an .env of its own"]
    elsewhere = _engine_elsewhere(variables)
    if elsewhere:
        faults.append(elsewhere)
        hints.append(f"{ENGINE_HINT}: unset DOCKER_HOST DOCKER_CONTEXT; docker context use default")
    if faults:
        hints = hints if contrary else hints[1:]
        raise Failure("; ".join(faults), hints=[*hints, "nothing was touched"], runbook=RUNBOOK)


def _engine_elsewhere(variables: Mapping[str, str]) -> str:
    """Return why docker would use the engine of another machine; empty if it would not."""
    host = variables.get("DOCKER_HOST", "")
    if host:  # it overrides a context
        return "" if _is_local(host) else "DOCKER_HOST names an engine of another machine"
    client = _Client(Path(variables.get("DOCKER_CONFIG") or Path.home() / ".docker"))
    context = variables.get("DOCKER_CONTEXT") or client.context
    if context in {"", "default"}:
        return ""
    endpoint = client.endpoint(context)
    if _is_local(endpoint):
        return ""
    source = "DOCKER_CONTEXT" if variables.get("DOCKER_CONTEXT") else f"{client.folder}/config.json"
    where = "another machine" if endpoint else "no machine that its file names"
    return f"{source} chooses the context {context}, an engine of {where}"


def _is_local(endpoint: str) -> bool:
    loopback = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:")
    return endpoint.startswith(("unix://", *loopback))


@dataclass(frozen=True)
class _Client:
    """The folder with the settings of docker's client."""

    folder: Path

    @property
    def context(self) -> str:
        """The context that `docker context use` chose."""
        return _text(_read(self.folder / "config.json"), "currentContext")

    def endpoint(self, context: str) -> str:
        """Return the address of a context's engine; empty if its file is not there."""
        name = hashlib.sha256(context.encode()).hexdigest()
        metadata = _read(self.folder / "contexts" / "meta" / name / "meta.json")
        return _text(metadata, "Endpoints", "docker", "Host")


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # docker itself reports a broken file


def _text(content: object, *path: str) -> str:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, str) else ""
