"""The engine's state: images, tags, containers and volumes, and the changes of each."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stack.config.keys import KEYS, LIMITS, Scope, of_scope

from tests.simulator.clock import Clock
from tests.simulator.counters import Traffic
from tests.simulator.database import Database, Volume

SLOTS = ("blue", "green")
SERVICE_KEYS = frozenset(of_scope(Scope.SERVICE))
DRAIN_SECONDS = 5.0  # of at most 25 s: a worker with short jobs
# The sources of a release name the behaviour of its processes (files.py).
CRASHES, REFUSES, BREAKS, FAILS_IN_TRAFFIC = "crashes", "refuses", "breaks", "fails-in-traffic"
GOOD = "good"
TRAITS = (GOOD, CRASHES, REFUSES, BREAKS, FAILS_IN_TRAFFIC)
POSTGRES_VERSION = 17
# nginx' key in the file that nginx reads at a reload.
HOST = re.compile(r"^SLIPWAY_HOST='(.*)'$", re.MULTILINE)


class CutOff(Exception):
    """A command of the engine ended after a part of its work."""


@dataclass
class Image:
    """One image; the tags are names for it.

    Attributes:
        version: the major version of Postgres in it.
    """

    identifier: str
    labels: dict[str, str]
    trait: str = GOOD
    made: int = 0
    version: int = POSTGRES_VERSION

    @property
    def release(self) -> str:
        """The release in the image's label."""
        return self.labels.get("org.opencontainers.image.version", "")

    @property
    def content(self) -> tuple[str, ...]:
        """The inputs of its build."""
        return (self.trait, *(f"{key}={value}" for key, value in sorted(self.labels.items())))


@dataclass
class Container:
    """One container of a service, with its image and configuration.

    Attributes:
        configuration: the values of `.env` that Compose compares.
        environment: the values of the slot's file, which Compose compares too.
        checkout: the directory whose files it mounts.
        files: the path of each secret; secrets: the text that its process read from each.
        host: the name that nginx answers to; another service has none.
        ends_at: the moment when a drained worker ends.
        busy_until: the moment when a server answers its health check again; it serves meanwhile.
    """

    identifier: str
    project: str
    service: str
    image: str
    configuration: dict[str, str]
    environment: dict[str, str]
    checkout: str
    files: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict)
    state: str = "created"
    health: str = ""
    exit: int = 0
    host: str = ""
    ends_at: float | None = None
    busy_until: float | None = None
    is_stopped_by_hand: bool = False

    @property
    def name(self) -> str:
        """The name that Compose gives it."""
        return f"{self.project}-{self.service}-1"

    @property
    def is_well(self) -> bool:
        """Whether it runs and its health check succeeds."""
        return self.state == "running" and self.health == "healthy"

    @property
    def takes_jobs(self) -> bool:
        """Whether it runs and has not received its drain signal."""
        return self.is_well and self.ends_at is None

    @property
    def settings(self) -> dict[str, str]:
        """The service's effective keys; the limits come from `.env`."""
        limits = {key: self.configuration[key] for key in LIMITS if key in self.configuration}
        given = {key: self.environment.get(key, "") for key in SERVICE_KEYS}
        return given | {key: value or KEYS[key].default for key, value in limits.items()}

    @property
    def number(self) -> int:
        """The number of its deployment; 0 without one."""
        return int(self.environment.get("SLIPWAY_DEPLOYMENT") or 0)


@dataclass
class Engine:
    """All that the engine of the simulated host keeps.

    Attributes:
        budget: the number of changes that the running command may still make before it is cut off.
        replaced: each serving service that a command stopped or removed, with the command.
        traffic: the requests of each project's nginx, and its counter.
        certificate: the host of the certificate that nginx has loaded.
        one_shots: the names of containers outside of Compose's services.
        moved: the renamed folders of checkouts, in their order, with their new names.
    """

    clock: Clock = field(default_factory=Clock)
    images: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    containers: dict[tuple[str, str], Container] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    used_ports: set[str] = field(default_factory=set)  # by programs outside the stack
    has_registry: bool = True
    has_traffic: bool = True
    count: int = 0
    budget: int | None = None
    replaced: list[tuple[str, str]] = field(default_factory=list)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    certificate: str = ""
    one_shots: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)

    def number(self) -> int:
        """Return a new number for an identifier."""
        self.count += 1
        return self.count

    def spend(self) -> None:
        """Count one change, or end the command here."""
        if self.budget is not None:
            if self.budget <= 0:
                raise CutOff
            self.budget -= 1

    def image_of(self, name: str) -> Image | None:
        """Return the image with a name, or with an identifier."""
        identifier = self.tags.get(name, name)
        return self.images.get(identifier)

    def add_image(
        self,
        name: str,
        labels: dict[str, str],
        trait: str = GOOD,
        version: int = POSTGRES_VERSION,
    ) -> None:
        """Make an image and give it a name."""
        number = self.number()
        identifier = f"sha256:{number:08x}"
        self.images[identifier] = Image(identifier, labels, trait, number, version)
        self.tags[name] = identifier

    def volume(self, project: str, name: str) -> Volume:
        """Return a volume of a project; create it if it is missing."""
        key = f"{project}_{name}"
        return self.volumes.get(key) or self.volumes.setdefault(key, Volume())

    def container(self, project: str, service: str) -> Container | None:
        """Return the container of a service."""
        return self.containers.get((project, service))

    def traffic_of(self, project: str) -> Traffic:
        """Return the requests of a project's nginx."""
        # To make the counts of a new nginx for each request would take longer than the request.
        return self.traffic.get(project) or self.traffic.setdefault(project, Traffic(self.clock))

    def is_running(self, project: str, service: str) -> bool:
        """Whether the container of a service runs."""
        container = self.container(project, service)
        return container is not None and container.state == "running"

    def link(self, project: str) -> str:
        """Return the slot that the live link names."""
        volume = self.volumes.get(f"{project}_slots")
        return volume.link if volume else ""

    def database(self, project: str) -> Database | None:
        """Return the database that the server of a project opens, running or not."""
        volume = self.volumes.get(f"{project}_postgres")
        if volume is None:
            return None
        server = self.container(project, "postgres")
        version = str(self.images[server.image].version) if server else ""
        if version in volume.directories:
            return volume.directories[version]
        newest = max((name for name in volume.directories if name.isdecimal()), default="")
        return volume.directories.get(newest)

    def note(self, container: Container, event: str) -> None:
        """Record a change of a container that served at that moment."""
        kind, _, slot = container.service.partition("-")
        is_idle = bool(slot) and slot != self.link(container.project)
        is_serving = container.is_well or container.busy_until is not None
        if is_serving and kind != "worker" and not is_idle:
            self.replaced.append((container.service, event))

    def create(self, container: Container) -> None:
        """Add a container that does not run yet."""
        self.spend()
        self.containers[container.project, container.service] = container

    def begin(self, container: Container) -> str:
        """Start the process of a container; return the reason why its mounts fail, or nothing.

        It is healthy if its image is.
        """
        self.spend()
        missing = [path for path in container.files.values() if not os.path.isfile(path)]
        folder = container.configuration.get("checkout", "")  # of a service that mounts some of it
        missing += [folder] if folder and not os.path.isdir(folder) else []
        if missing:
            container.state, container.health, container.exit = "exited", "", 127
            return f"error mounting {missing[0]}: no such file or directory"
        image = self.images[container.image]
        container.secrets = {
            name: Path(path).read_text(encoding="utf-8").strip()
            for name, path in container.files.items()
        }
        container.ends_at, container.exit, container.is_stopped_by_hand = None, 0, False
        container.busy_until = None
        is_crashing = image.trait in {CRASHES, REFUSES} and container.service.startswith(
            ("api-", "worker-")
        )
        if is_crashing or not self._open_data(container, image):
            container.state, container.health, container.exit = "restarting", "starting", 1
        else:
            container.state, container.health = "running", "healthy"
        return ""

    def _open_data(self, container: Container, image: Image) -> bool:
        """Open the volume of a server as at its start; return whether it can serve."""
        if container.service == "nginx":
            volume = self.volume(container.project, "slots")
            volume.link = volume.link or "blue"
            if not self.read_settings(container):
                return False
        if container.service == "counter":
            self.traffic_of(container.project).begin()
        if container.service == "backup":
            backups = self.volume(container.project, "backups").backups
            backups.key = backups.key or container.secrets["backup_key"]
        if container.service != "postgres":
            return True
        directories = self.volume(container.project, "postgres").directories
        if not directories:
            password = container.secrets["database_password"]
            directories[str(image.version)] = Database(password)
        return str(image.version) in directories

    def read_settings(self, container: Container) -> bool:
        """Load the files that nginx mounts, as at a start or reload; return whether that succeeds.

        A mount follows a renamed folder.
        """
        folder = Path(container.configuration["STATE_DIR"]) / "nginx"
        match = HOST.search(_text_of(folder / "settings.env"))
        if match is None or not (folder / "service.conf").is_file():
            return False
        container.host = match[1]
        file = Path(self.place_of(container.configuration["certificate"]))
        if file.is_file():
            self.certificate = file.read_text(encoding="utf-8").strip()
        return True

    def place_of(self, path: str) -> str:
        """Return where a mounted file is now."""
        for former, present in self.moved.items():
            if path.startswith(f"{former}/"):
                path = present + path.removeprefix(former)
        return path

    def stop(self, container: Container) -> None:
        """Stop a container, as `docker stop` does: no restart policy starts it again."""
        if container.state in {"running", "restarting"}:
            self.spend()
            self.note(container, "stopped")
            container.state, container.health, container.exit = "exited", "", 0
        container.ends_at, container.busy_until, container.is_stopped_by_hand = None, None, True

    def remove(self, container: Container) -> None:
        """Remove a container that is stopped or not."""
        self.spend()
        self.note(container, "removed")
        del self.containers[container.project, container.service]

    def end_drained(self) -> None:
        """End each worker whose last job is finished; a busy server is healthy after its time."""
        for container in self.containers.values():
            if container.ends_at is not None and container.ends_at <= self.clock.now:
                container.state, container.health, container.ends_at = "exited", "", None
            if container.busy_until is not None and container.busy_until <= self.clock.now:
                container.busy_until = None
                container.health = "healthy" if container.state == "running" else ""

    def await_busy(self, containers: Iterable[Container], seconds: float) -> None:
        """Wait for the busy containers of these, at most so long for each."""
        for container in containers:
            if container.busy_until is not None:
                self.clock.advance(min(container.busy_until - self.clock.now, seconds))
        self.end_drained()

    def drain(self, container: Container) -> None:
        """Give a worker its first signal."""
        if container.state == "running":
            self.spend()
            container.ends_at = self.clock.now + DRAIN_SECONDS
            container.is_stopped_by_hand = True  # the engine notes a signal as a stop

    def is_used(self, identifier: str) -> bool:
        """Whether a container, running or not, uses an image."""
        return any(container.image == identifier for container in self.containers.values())


def _text_of(file: Path) -> str:
    """Return the text of a file; empty if there is none."""
    return file.read_text(encoding="utf-8") if file.is_file() else ""
