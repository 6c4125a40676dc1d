"""The table of the keys of `.env`: the scope, the form and the default of each key.

The scope names the reader of a key and so the command that applies a change. `.env.example`
explains the keys to the operator. tests/contracts/test_variables.py compares the two with the
compose files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

from stack.config import forms


class Scope(StrEnum):
    """The part of the stack that a key belongs to.

    SERVICE keys are part of a deployment: `deploy.sh` applies them and `rollback.sh` restores them.
    `deploy.sh` also applies the NGINX keys that need only a reload. `up.sh --apply` applies the
    keys that need a new container. The scripts read SCRIPTS keys each time they run.
    """

    SERVICE = "service"
    NGINX = "nginx"
    DATA = "data"
    BACKUP = "backup"
    SCRIPTS = "scripts"


@dataclass(frozen=True)
class Key:
    """One key of `.env`.

    Attributes:
        scope: the part of the stack that it belongs to.
        default: the value if the key is empty or missing; an empty text if it has no default.
        form: the function that parses the key's text.
        containers: the services whose containers a change replaces.
    """

    scope: Scope
    default: str = ""
    form: Callable[[str], object] = forms.text
    containers: tuple[str, ...] = ()


NGINX, POSTGRES, REDIS, BACKUP = ("nginx",), ("postgres",), ("redis",), ("backup",)


def _service(default: str = "", form: Callable[[str], object] = forms.setting) -> Key:
    return Key(Scope.SERVICE, default, form)


def _container(
    scope: Scope, containers: tuple[str, ...], default: str, form: Callable[[str], object]
) -> Key:
    return Key(scope, default, form, containers)


def _offsite(default: str = "") -> Key:
    return Key(Scope.BACKUP, default, forms.text, BACKUP)


KEYS: Mapping[str, Key] = {
    "SLIPWAY_HOST": Key(Scope.NGINX, "localhost", forms.host),
    "COMPOSE_FILE": Key(Scope.SCRIPTS, "", forms.compose_files),
    "HTTP_BIND": _container(Scope.NGINX, NGINX, "127.0.0.1", forms.address),
    "HTTPS_BIND": _container(Scope.NGINX, NGINX, "127.0.0.1", forms.address),
    "HTTP_PORT": _container(Scope.NGINX, NGINX, "8080", forms.port),
    "HTTPS_PORT": _container(Scope.NGINX, NGINX, "8443", forms.port),
    "SINK_PORT": Key(Scope.SCRIPTS, "8025", forms.port),
    "RATE_LIMIT_PER_SECOND": Key(Scope.NGINX, "200", forms.positive),
    "ENVIRONMENT": _service("production"),
    "LOG_LEVEL": _service("INFO"),
    "DOCS_ENABLED": _service("false"),
    "ACCESS_TOKEN_MINUTES": _service("15"),
    "REFRESH_TOKEN_DAYS": _service("30"),
    "EXPORT_KEEP_HOURS": _service("24"),
    "OPS_USER": _service("operator"),
    "OPS_SESSION_IDLE_MINUTES": _service("30"),
    "OPS_SESSION_MAX_MINUTES": _service("120"),
    "USER_LIMIT_PER_SECOND": _service("100"),
    "LOGIN_LIMIT_PER_MINUTE": _service("10"),
    "REGISTRATION_LIMIT_PER_HOUR": _service("20"),
    "EXPORT_LIMIT_PER_HOUR": _service("20"),
    "CORS_ORIGINS": _service(),
    "CORS_CREDENTIALS": _service("false"),
    "WEBHOOK_ALLOWED_PORTS": _service("443"),
    "WEBHOOK_ALLOWED_NETWORKS": _service(),
    # One process per core, but no more than fit into API_MEMORY (rules/connections.py).
    "API_PROCESSES": _service("", forms.whole),
    "WORKER_PROCESSES": _service("1", forms.whole),
    "WORKER_CONCURRENCY": _service("4", forms.whole),
    "DATABASE_POOL_SIZE": _service("5", forms.whole),
    "DATABASE_SSLMODE": _service("disable"),
    "DATABASE_SSLROOTCERT": _service(),
    "BACKUP_HOURS": _container(Scope.BACKUP, BACKUP, "6", forms.number),
    "BACKUP_FULL_HOURS": _container(Scope.BACKUP, BACKUP, "168", forms.number),
    "BACKUP_KEEP_DAYS": _container(Scope.BACKUP, BACKUP, "14", forms.shell_whole),
    "DRILL_HOURS": _container(Scope.BACKUP, BACKUP, "24", forms.number),
    "OFFSITE_TYPE": _offsite(),
    "OFFSITE_HOST": _offsite(),
    "OFFSITE_PORT": _offsite(),
    "OFFSITE_USER": _offsite(),
    "OFFSITE_PATH": _offsite("/slipway"),
    "OFFSITE_FINGERPRINT": _offsite(),
    "OFFSITE_BUCKET": _offsite(),
    "OFFSITE_REGION": _offsite(),
    "OFFSITE_DRILL_HOURS": _container(Scope.BACKUP, BACKUP, "168", forms.number),
    "API_MEMORY": _service("256m", forms.memory),
    "WORKER_MEMORY": _service("160m", forms.memory),
    "POSTGRES_MEMORY": _container(Scope.DATA, POSTGRES, "256m", forms.memory),
    "BACKUP_MEMORY": _container(Scope.BACKUP, BACKUP, "128m", forms.memory),
    "REDIS_MEMORY": _container(Scope.DATA, REDIS, "64m", forms.memory),
    "NGINX_MEMORY": _container(Scope.NGINX, NGINX, "160m", forms.memory),
    "API_CPUS": _service("2", forms.cpus),
    "WORKER_CPUS": _service("1", forms.cpus),
    "POSTGRES_CPUS": _container(Scope.DATA, POSTGRES, "2", forms.cpus),
    "BACKUP_CPUS": _container(Scope.BACKUP, BACKUP, "1", forms.cpus),
    "REDIS_CPUS": _container(Scope.DATA, REDIS, "1", forms.cpus),
    "NGINX_CPUS": _container(Scope.NGINX, NGINX, "1", forms.cpus),
    "POSTGRES_BALLAST_MB": _container(Scope.DATA, POSTGRES, "256", forms.shell_whole),
    "SMOKE_PATHS": Key(Scope.SCRIPTS, "", forms.requests),
    # Chosen: far above the one second that was measured on an idle machine.
    "READY_SECONDS": Key(Scope.SCRIPTS, "60", forms.whole),
    "WATCH_SECONDS": Key(Scope.SCRIPTS, "10", forms.number),
    # A rollback inside the window is one rename. The old slot's API keeps its memory meanwhile.
    "ROLLBACK_WINDOW_SECONDS": Key(Scope.SCRIPTS, "600", forms.number),
    "KEEP_RELEASES": Key(Scope.SCRIPTS, "5", forms.whole),
    # Chosen: an image of 250 MB with its build cache, and room for a day's WAL and logs.
    "FREE_DISK_FLOOR_BYTES": Key(Scope.SCRIPTS, "2000000000", forms.whole),
    # 300 MiB. Measured: a slot takes 200 MB idle; its first requests take half as much again.
    "FREE_MEMORY_FLOOR_BYTES": Key(Scope.SCRIPTS, "314572800", forms.whole),
    "NOTIFY_COMMAND": Key(Scope.SCRIPTS, "", forms.command),
    "PYTHON_IMAGE": Key(Scope.SCRIPTS),
    "NGINX_IMAGE": Key(Scope.NGINX, containers=NGINX),
    "POSTGRES_IMAGE": Key(Scope.DATA, containers=POSTGRES + BACKUP),
    "REDIS_IMAGE": Key(Scope.DATA, containers=REDIS),
    # Depends on the user who runs the scripts: config/project.py.
    "STATE_DIR": Key(Scope.SCRIPTS, "", forms.directory),
    "SECRETS_DIR": Key(Scope.SCRIPTS, "./secrets", forms.folder),
    "COMPOSE_PROJECT_NAME": Key(Scope.SCRIPTS, "slipway", forms.project_name),
    "SLIPWAY_IMAGE": Key(Scope.SCRIPTS, "slipway/app"),
}
# nginx gets these by a reload (parts/edge_settings.py).
RELOADED = tuple(
    name for name, key in KEYS.items() if key.scope is Scope.NGINX and not key.containers
)
# Variables of the compose files that only the scripts set, for one command.
SET_BY_SCRIPTS = ("MIGRATE_TAG", "MIGRATE_CONFIRM", "POSTGRES_TAG")
# The first version had these keys; later versions may add others. A file that lacks one of these
# keys was cut off, and a default instead of its value could lead to another stack.
NEEDED = (
    *("SLIPWAY_HOST", "STATE_DIR", "SECRETS_DIR", "COMPOSE_PROJECT_NAME", "SLIPWAY_IMAGE"),
    *("PYTHON_IMAGE", "NGINX_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE"),
)
# These keys identify the stack: with other values, the commands would work on a mixture of two
# stacks. Each has the value that an empty text means.
IDENTITY: Mapping[str, str] = {
    "COMPOSE_PROJECT_NAME": "slipway",
    "COMPOSE_FILE": "compose.yaml",
    "SLIPWAY_IMAGE": "slipway/app",
    "STATE_DIR": "",
    "SECRETS_DIR": "./secrets",
}
# Limits of containers, which no process inside reads.
LIMITS = ("API_MEMORY", "WORKER_MEMORY", "API_CPUS", "WORKER_CPUS")


@cache
def of_scope(scope: Scope) -> tuple[str, ...]:
    """Return the keys of a scope."""
    return tuple(name for name, key in KEYS.items() if key.scope is scope)


@cache
def of_form(*wanted: Callable[[str], object]) -> tuple[str, ...]:
    """Return the keys whose values have one of these forms."""
    return tuple(name for name, key in KEYS.items() if key.form in wanted)


@cache
def of_container(service: str) -> tuple[str, ...]:
    """Return the keys whose change needs a new container of this service."""
    return tuple(name for name, key in KEYS.items() if service in key.containers)


def typed(name: str, text: str) -> object:
    """Return the value of a key, or its default, read by its form; None if it has neither.

    Raises:
        ValueError: with the rest of a sentence that begins with the key.
    """
    text = text or KEYS[name].default
    return _parse(KEYS[name].form, text) if text else None


# A command reads the same values again with each question to the front door. Chosen: room for every
# key with a few values.
@lru_cache(maxsize=1024)
def _parse(form: Callable[[str], object], text: str) -> object:
    return form(text)


def parse(values: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """Return the parsed value of each key, and one sentence for each value that is wrong."""
    given: dict[str, object] = {}
    faults = []
    for name in KEYS:
        try:
            given[name] = typed(name, values.get(name, ""))
        except ValueError as error:
            faults.append(f"{name} is {error}")
    return given, faults
