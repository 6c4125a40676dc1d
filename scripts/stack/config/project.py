"""What the operator wrote, as one frozen object: built once, before the first effect."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from stack.config import environment, offsite
from stack.failure import Failure

BASES = ("python", "nginx", "postgres", "redis")
CPU_KEYS = ("API_CPUS", "WORKER_CPUS", "POSTGRES_CPUS", "BACKUP_CPUS", "REDIS_CPUS", "NGINX_CPUS")
NUMBER_KEYS = (
    "READY_SECONDS",
    "WATCH_SECONDS",
    "ROLLBACK_WINDOW_SECONDS",
    "KEEP_RELEASES",
    "FREE_DISK_FLOOR_BYTES",
    "FREE_MEMORY_FLOOR_BYTES",
    "API_PROCESSES",
    "DATABASE_POOL_SIZE",
    "WORKER_PROCESSES",
    "WORKER_CONCURRENCY",
    "BACKUP_HOURS",
    "BACKUP_FULL_HOURS",
    "DRILL_HOURS",
    "OFFSITE_DRILL_HOURS",
)
WHOLE_KEYS = ("POSTGRES_BALLAST_MB", "BACKUP_KEEP_DAYS")
SECRETS = (
    "database_password",
    "redis_password",
    "redis_admin_password",
    "token_key",
    "ops_password",
    "backup_key",
)
# Made empty. Compose starts no service whose secret file is missing.
OPTIONAL_SECRETS = ("sentry_dsn", "token_key_previous", "offsite_secret", "offsite_ca")
# May be emptied: an empty one turns the console off.
CLEARABLE_SECRETS = ("ops_password",)


@dataclass(frozen=True)
class Project:
    """One stack on this machine, as `.env` describes it.

    Attributes:
        root: the checkout.
        values: `.env`, with the process environment over it, as Compose reads them.
    """

    root: Path
    values: Mapping[str, str]

    @property
    def name(self) -> str:
        """The Compose project: part of every container's and volume's name."""
        return self.values.get("COMPOSE_PROJECT_NAME") or "slipway"

    @property
    def image(self) -> str:
        """The repository of the application's image, without a tag."""
        return self.values.get("SLIPWAY_IMAGE") or "slipway/app"

    @property
    def nginx_image(self) -> str:
        """The image nginx runs from; `nginx/Dockerfile`."""
        return f"{self.image}-nginx:current"

    @property
    def postgres_image(self) -> str:
        """The image Postgres and the backup service run from; `postgres/Dockerfile`."""
        return f"{self.image}-postgres:current"

    def base(self, service: str) -> str:
        """The base image of python, nginx, postgres or redis; empty where none was chosen yet."""
        return self.values.get(f"{service.upper()}_IMAGE", "")

    @property
    def host(self) -> str:
        """The host name that clients ask for."""
        return self.values.get("SLIPWAY_HOST") or "localhost"

    @property
    def https_port(self) -> int:
        """The published HTTPS port."""
        return 443 if self.is_public else int(self.values.get("HTTPS_PORT") or 8443)

    @property
    def is_public(self) -> bool:
        """Whether the production file, which publishes 80 and 443, is in use."""
        return "compose.prod.yaml" in self.values.get("COMPOSE_FILE", "")

    @property
    def is_development(self) -> bool:
        """Whether the file for a developer's machine, which runs the checkout and no release, is in use."""
        return "compose.dev.yaml" in self.values.get("COMPOSE_FILE", "")

    @property
    def url(self) -> str:
        """The address of the front door."""
        return f"https://{self.host}" + ("" if self.https_port == 443 else f":{self.https_port}")

    @property
    def dial_address(self) -> str:
        """The local address to reach the published port at."""
        bound = self.values.get("HTTPS_BIND") or "127.0.0.1"
        return "127.0.0.1" if bound == "0.0.0.0" else bound  # noqa: S104 - compared, not bound

    @property
    def secrets(self) -> Path:
        """The directory of the secret files."""
        return (self.root / (self.values.get("SECRETS_DIR") or "secrets")).resolve()

    @property
    def certificate(self) -> Path:
        """The certificate chain that nginx serves."""
        return self.secrets / "tls" / "fullchain.pem"

    @property
    def state(self) -> Path:
        """The directory of the ledger, the lock and the evidence, outside the checkout."""
        return Path(self.values.get("STATE_DIR") or default_state(self.name))

    @property
    def nginx_folder(self) -> Path:
        """Where nginx's configuration is installed: `releases/`, and the link `current` that nginx reads."""
        return self.state / "nginx"

    @property
    def ledger(self) -> Path:
        """The append-only record of what was done, one JSON object a line."""
        return self.state / "ledger.jsonl"


def default_state(name: str) -> Path:
    """Return where the state goes unless STATE_DIR says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/slipway") / name
    return Path.home() / ".local" / "state" / "slipway" / name


def load(root: Path) -> Project:
    """Read `.env`, the process environment over it.

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
    # As bytes: reading as text would hide Windows line ends, which Compose passes on.
    lines = environment.parse(file.read_bytes().decode("utf-8", "replace"))
    known = environment.known_keys(root / ".env.example")
    environment.check_keys(lines, known)
    environment.check_missing(lines, root / ".env.example")
    values = {line.key: line.value for line in lines}
    is_public = Project(root, values).is_public
    values.update({key: value for key, value in os.environ.items() if key in known})
    project = Project(root, values)
    if is_public and project.is_development:
        raise Failure(
            ".env is that of a public host, and COMPOSE_FILE in the environment names compose.dev.yaml",
            hints=[
                "nothing was touched",
                "a developer's stack has a checkout and an .env of its own",
            ],
            runbook="boot-refused-by-the-configuration",
        )
    _check_values(project)
    return project


def refuse_development(project: Project) -> None:
    """Refuse a stack whose compose files run the checkout itself: there is no release to make live or to go back to."""
    if project.is_development:
        raise Failure(
            "COMPOSE_FILE names compose.dev.yaml, which runs the checkout itself and no release",
            hints=[
                "nothing was touched",
                "for a server: take it out of COMPOSE_FILE in .env, then ./scripts/up.sh",
            ],
            runbook="boot-refused-by-the-configuration",
        )


def _check_values(project: Project) -> None:
    faults = []
    if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", project.host):
        faults.append(
            "SLIPWAY_HOST is not a host name (an address is none: TLS cannot announce it)"
        )
    for key in ("HTTP_BIND", "HTTPS_BIND"):
        try:
            ip_address(project.values.get(key) or "127.0.0.1")
        except ValueError:
            faults.append(f"{key} is not an IP address")
    if project.is_public and project.is_development:
        faults.append(
            "COMPOSE_FILE names compose.prod.yaml and compose.dev.yaml, of which it may name one"
        )
    cores = os.cpu_count() or 1
    for key in CPU_KEYS:
        if not re.fullmatch(r"\d+(\.\d+)?", project.values.get(key) or "1"):
            faults.append(f"{key} is not a number")
        elif float(project.values.get(key) or 0) > cores:
            faults.append(f"{key} is more than the {cores} cores of this machine")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project.name):
        faults.append("COMPOSE_PROJECT_NAME may hold lower-case letters, digits, - and _ only")
    for key in ("HTTP_PORT", "HTTPS_PORT", "SINK_PORT"):
        value = project.values.get(key) or "1"
        if not value.isdecimal() or not 0 < int(value) < 65536:
            faults.append(f"{key} is not a port")
    faults += [
        f"{key} is not a number"
        for key in NUMBER_KEYS
        if not re.fullmatch(r"\d+(\.\d+)?", project.values.get(key) or "0")
    ]
    faults += [
        f"{key} is not a whole number"
        for key in WHOLE_KEYS
        if not re.fullmatch(r"0|[1-9]\d*", project.values.get(key) or "0")
    ]
    rate = project.values.get("RATE_LIMIT_PER_SECOND") or "1"
    if not rate.isdecimal() or int(rate) < 1:
        faults.append("RATE_LIMIT_PER_SECOND is not a whole number above 0")
    faults += offsite.faults(project.values, project.secrets)
    if faults:
        raise Failure("; ".join(faults), hints=["correct .env"], runbook=environment.RUNBOOK)
