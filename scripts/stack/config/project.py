"""One stack on this host as `.env` describes it: a frozen object, made before the first effect."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from stack.config import checks, environment, keys, surroundings
from stack.config.defaults import (
    DEFAULTS,
    DEVELOPMENT_SETTINGS,
    PUBLIC_DEFAULTS,
    PUBLIC_PORTS,
    PUBLIC_SETTINGS,
)
from stack.config.keys import Scope
from stack.failure import Failure

BASES = ("python", "nginx", "postgres", "redis")
SECRETS = (
    "database_password",
    "redis_password",
    "redis_admin_password",
    "token_key",
    "ops_password",
    "backup_key",
)
# Created empty, because Compose starts no service whose secret file is missing.
OPTIONAL_SECRETS = ("sentry_dsn", "token_key_previous", "offsite_secret", "offsite_ca")
# May be empty: without a password the console is off.
CLEARABLE_SECRETS = ("ops_password",)


@dataclass(frozen=True)
class Project:
    """One stack on this machine, as `.env` describes it.

    Attributes:
        root: the checkout.
        values: those of `.env`; variables of the process environment override them, as in Compose.
        overriding: the keys whose value in the process environment differs from that in `.env`.
        unknown: the keys of `.env` that nothing here reads, each with its line.
    """

    root: Path
    values: Mapping[str, str]
    overriding: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def typed(self, key: str) -> object:
        """Return a value, or its default, read by its form; `load` refuses what has none."""
        return keys.typed(key, self.values.get(key, ""))

    def setting(self, key: str) -> str:
        """Return the text of a setting, or its default if it is empty or missing."""
        default = DEFAULTS[key]
        if self.is_public and key in PUBLIC_DEFAULTS:
            default = PUBLIC_DEFAULTS[key]
        return self.values.get(key) or default

    def port(self, key: str) -> int:
        """Return a published port, HTTP_PORT or HTTPS_PORT; those of a public host are fixed."""
        return PUBLIC_PORTS[key] if self.is_public else self._whole(key)

    def _whole(self, key: str) -> int:
        return cast(int, self.typed(key))

    @property
    def service_settings(self) -> dict[str, str]:
        """The values of the service's keys; with a release, they make up a deployment."""
        forced: Mapping[str, str] = {}
        if self.is_public:
            forced = PUBLIC_SETTINGS
        elif self.is_development:
            forced = DEVELOPMENT_SETTINGS
        return {key: forced.get(key) or self.setting(key) for key in keys.of_scope(Scope.SERVICE)}

    @property
    def name(self) -> str:
        """The Compose project: part of every container's and volume's name."""
        return self.setting("COMPOSE_PROJECT_NAME")

    @property
    def image(self) -> str:
        """The repository of the application's image, without a tag."""
        return self.setting("SLIPWAY_IMAGE")

    @property
    def nginx_image(self) -> str:
        """The image of nginx; `nginx/Dockerfile`."""
        return f"{self.image}-nginx:current"

    @property
    def counter_image(self) -> str:
        """The image of the counter; `counter/Dockerfile`."""
        return f"{self.image}-counter:current"

    @property
    def postgres_image(self) -> str:
        """The image of Postgres and of the backup service; `postgres/Dockerfile`."""
        return f"{self.image}-postgres:current"

    def base(self, service: str) -> str:
        """Return the base image of python, nginx, postgres or redis; empty until one is chosen."""
        return self.setting(f"{service.upper()}_IMAGE")

    @property
    def host(self) -> str:
        """The host name that clients use."""
        return self.setting("SLIPWAY_HOST")

    @property
    def https_port(self) -> int:
        """The published HTTPS port."""
        return self.port("HTTPS_PORT")

    @property
    def is_public(self) -> bool:
        """Whether the production file, which publishes 80 and 443, is in use."""
        return "compose.prod.yaml" in self.values.get("COMPOSE_FILE", "")

    @property
    def is_development(self) -> bool:
        """Whether the developer's file, which runs the checkout and no release, is in use."""
        return "compose.dev.yaml" in self.values.get("COMPOSE_FILE", "")

    @property
    def url(self) -> str:
        """The address of the front door."""
        return f"https://{self.host}" + ("" if self.https_port == 443 else f":{self.https_port}")

    @property
    def dial_address(self) -> str:
        """The local address of the published port."""
        bound = self.setting("HTTPS_BIND").strip("[]")
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)  # noqa: S104 - compared

    @property
    def has_offsite_repository(self) -> bool:
        """Whether backups are also kept off this host."""
        return bool(self.setting("OFFSITE_TYPE"))

    @property
    def has_ballast(self) -> bool:
        """Whether Postgres' volume must have a ballast file; POSTGRES_BALLAST_MB=0 means none."""
        return self.setting("POSTGRES_BALLAST_MB") != "0"

    @property
    def ready_seconds(self) -> int:
        """The seconds in which a new slot must become healthy."""
        return self._whole("READY_SECONDS")

    @property
    def window_seconds(self) -> float:
        """The seconds for which the former slot stays warm."""
        return cast(float, self.typed("ROLLBACK_WINDOW_SECONDS"))

    @property
    def watch_seconds(self) -> float:
        """The seconds for which a deploy watches the new release after the switch."""
        return cast(float, self.typed("WATCH_SECONDS"))

    @property
    def keep_releases(self) -> int:
        """The number of releases that keep their images."""
        return self._whole("KEEP_RELEASES")

    @property
    def free_disk_floor_bytes(self) -> int:
        """The free disk space below which a deploy is refused."""
        return self._whole("FREE_DISK_FLOOR_BYTES")

    @property
    def free_memory_floor_bytes(self) -> int:
        """The free memory below which a deploy is refused."""
        return self._whole("FREE_MEMORY_FLOOR_BYTES")

    @property
    def api_processes(self) -> int:
        """The processes of each API; 0 means as many as cores and memory allow."""
        return cast(int | None, self.typed("API_PROCESSES")) or 0

    @property
    def api_cpus(self) -> float:
        """The CPUs of each API."""
        return cast(float, self.typed("API_CPUS"))

    @property
    def api_memory_bytes(self) -> int:
        """The memory of each API."""
        return self._whole("API_MEMORY")

    @property
    def notify_command(self) -> tuple[str, ...]:
        """The words of the command that receives the result of a deploy; empty without one."""
        return cast(tuple[str, ...] | None, self.typed("NOTIFY_COMMAND")) or ()

    @property
    def smoke_requests(self) -> tuple[tuple[str, int], ...]:
        """The paths of SMOKE_PATHS, each with the status that its answer must have."""
        return cast(tuple[tuple[str, int], ...] | None, self.typed("SMOKE_PATHS")) or ()

    @property
    def database_pool_size(self) -> int:
        """The database connections of each API process."""
        return self._whole("DATABASE_POOL_SIZE")

    @property
    def worker_processes(self) -> int:
        """The processes of each worker."""
        return self._whole("WORKER_PROCESSES")

    @property
    def worker_concurrency(self) -> int:
        """The jobs that each process of a worker runs at once."""
        return self._whole("WORKER_CONCURRENCY")

    @cached_property
    def secrets(self) -> Path:
        """The directory of the secret files."""
        return (self.root / self.setting("SECRETS_DIR")).resolve()

    @cached_property
    def certificate(self) -> Path:
        """The certificate chain that nginx serves."""
        return self.secrets / "tls" / "fullchain.pem"

    @property
    def first_user(self) -> Path:
        """The credentials of the first user, as JSON; the smoke test logs in with them."""
        return self.secrets / "first_user.json"

    @cached_property
    def state(self) -> Path:
        """The directory of the ledger, the lock and the evidence, outside the checkout."""
        return Path(self.setting("STATE_DIR") or default_state(self.name))

    @cached_property
    def nginx_folder(self) -> Path:
        """The folder of nginx' installed configurations: `releases/`, and the link `current`."""
        return self.state / "nginx"

    @cached_property
    def ledger(self) -> Path:
        """The append-only record of every action, one JSON object a line."""
        return self.state / "ledger.jsonl"


def default_state(name: str) -> Path:
    """Return the state directory that applies if STATE_DIR is empty."""
    if os.geteuid() == 0:
        return Path("/var/lib/slipway") / name
    return Path.home() / ".local" / "state" / "slipway" / name


def load(root: Path, *, is_lenient: bool = False) -> Project:
    """Read `.env`; variables of the process environment override its values.

    `is_lenient` collects unknown keys instead of refusing them: after the checkout of an older
    commit, `.env` may still have keys of the newer commit.

    Raises:
        Failure: for every kind of fault in the file, naming keys and lines, never a value.
    """
    file = root / ".env"
    if not file.exists():
        raise Failure(
            "there is no .env here",
            hints=["./scripts/up.sh creates it"],
            runbook=environment.RUNBOOK,
        )
    # As bytes: reading as text would hide Windows line endings, which Compose passes on.
    lines = environment.parse(environment.decode(file.read_bytes()))
    known = environment.known_keys(root / ".env.example")
    if not is_lenient:
        environment.check_keys(lines, known)
    environment.check_missing(lines)
    written = {line.key: line.value for line in lines if line.key in known}
    given = {key: os.environ[key] for key in sorted(known.intersection(os.environ))}
    surroundings.refuse(written, os.environ)
    project = Project(
        root,
        {**written, **given},
        tuple(sorted(key for key in given if given[key] != written.get(key, ""))),
        tuple(environment.unknown_keys(lines, known)),
    )
    faults = checks.faults(project.values, project.secrets)
    if faults:
        raise Failure("; ".join(faults), hints=["correct .env"], runbook=environment.RUNBOOK)
    return project


def compose_values(root: Path) -> dict[str, str]:
    """Return the values of `.env` for Compose; empty where the file cannot be read.

    A value in its environment overrides the value that Compose itself reads from `.env`. The name
    of the project is never empty: with a name, Compose lists containers without reading its files,
    which need settings that the first `up.sh` has yet to write.
    """
    try:
        content = (root / ".env").read_bytes()
        lines = environment.parse(environment.decode(content))
    except (OSError, Failure):
        return {}
    values = {line.key: line.value for line in lines}
    name = "COMPOSE_PROJECT_NAME"
    return {**values, name: values.get(name) or DEFAULTS[name]}


def refuse_development(project: Project) -> None:
    """Refuse a stack whose compose files run the checkout itself: it has no releases."""
    if project.is_development:
        raise Failure(
            "COMPOSE_FILE names compose.dev.yaml, which runs the checkout itself and no release",
            hints=[
                "nothing was touched",
                "for a server: take it out of COMPOSE_FILE in .env, then ./scripts/up.sh",
            ],
            runbook=environment.RUNBOOK,
        )
