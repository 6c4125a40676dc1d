"""The facts of a host at one moment, read from the host itself and never from the scripts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stack.config.keys import KEYS, LIMITS
from stack.config.secret_files import BINDINGS
from stack.rules import migrations
from stack.rules.migrations import Revision

from tests.simulator.containers import SLOTS, Container
from tests.simulator.files import content_of
from tests.simulator.host import Host
from tests.simulator.operators import ledger

WINDOW_SECONDS, OVERDUE_SECONDS = 600, 60  # the default window, and a minute to end it
WORKER_SECONDS = 36  # the stop_grace_period of a worker, and what `status` adds to it
SERVICES = ("nginx", "counter", "postgres", "redis", "backup")
DEPLOYED_TO = ("nginx", "postgres", "redis")


@dataclass(frozen=True)
class Truth:
    """The facts that the invariants compare before and after an action.

    Attributes:
        trait: the behaviour of the live release.
        is_up: whether nginx, Postgres and Redis are well; otherwise `deploy` runs `up` first.
        is_overdue: whether a rollback window is over, and no process will end it.
        has_new_limits: whether `.env` has other limits than the live API.
    """

    link: str
    release: str
    trait: str
    container: str
    is_serving: bool
    failed: int
    acknowledged: int
    backups: int
    environment: tuple[tuple[str, str], ...]
    is_overdue: bool
    has_new_limits: bool
    is_up: bool


def look(host: Host) -> Truth:
    """Return the present facts."""
    project = host.project
    live = host.live_container(project)
    volume = host.engine.volumes.get(f"{project}_backups")
    return Truth(
        link=host.engine.link(project),
        release=host.engine.images[live.image].release if live else "",
        trait=host.engine.images[live.image].trait if live else "",
        container=live.identifier if live else "",
        is_serving=host.serving() is not None,
        failed=host.state.clients.failed,
        acknowledged=host.state.clients.acknowledged,
        backups=len(volume.backups.kept) if volume else 0,
        environment=tuple(sorted(host.compose.values().items())),
        is_overdue=is_window_overdue(host),
        is_up=all(is_well(host, name) for name in DEPLOYED_TO),
        has_new_limits=live is not None and has_new_limits(host, live),
    )


def idle_slot(host: Host) -> str:
    """Return the slot that is not live."""
    return SLOTS[1] if host.engine.link(host.project) in {SLOTS[0], ""} else SLOTS[0]


def is_well(host: Host, service: str) -> bool:
    """Whether the container of a service runs and is healthy."""
    container = host.engine.container(host.project, service)
    return container is not None and container.is_well


def has_stale_secrets(host: Host, container: Container) -> bool:
    """Whether a container's process has other secrets than the files."""
    return any(
        secret != host.compose.read_secret(name) for name, secret in container.secrets.items()
    )


def differing_settings(host: Host, container: Container) -> list[str]:
    """Return the service's keys for which a container has another value than `.env`."""
    values, given = host.compose.values(), container.settings
    return sorted(key for key in given if given[key] != setting(values, key))


def has_new_limits(host: Host, container: Container) -> bool:
    """Whether a limit of a container was edited in `.env` after its creation."""
    values = host.compose.values()
    return any(
        setting(container.configuration, key) != setting(values, key)
        for key in LIMITS
        if key in container.configuration
    )


def other_checkouts(host: Host) -> set[str]:
    """Return the other checkouts that exist and own containers of the stack."""
    made_from = {container.checkout for container in host.engine.containers.values()}
    return {path for path in made_from if path != str(host.root) and Path(path).is_dir()}


def is_recorded_elsewhere(host: Host) -> bool:
    """Whether the state directory has an owner, and the operator works in another checkout."""
    has_record = (host.folder / "state" / "owner.json").is_file()
    return has_record and host.state.place != host.state.home


def lost_secrets(host: Host) -> list[str]:
    """Return the secrets whose files are missing or do not open the data of the stack."""
    return [name for name in BINDINGS if not opens(host, name)]


def opens(host: Host, name: str) -> bool:
    """Whether the file of a secret opens its data, if there is data."""
    engine, project, secret = host.engine, host.project, host.compose.read_secret(name)
    if f"{project}_{BINDINGS[name].volume}" not in engine.volumes:
        return True
    if name == "backup_key":
        return secret == (engine.volume(project, "backups").backups.key or secret) and bool(secret)
    if name == "database_password":
        database = engine.database(project)
        return bool(secret) and (database is None or database.password == secret)
    redis = engine.container(project, "redis")
    if name.startswith("redis") and redis and redis.state == "running":
        return secret == redis.secrets[name]
    return bool(secret)


def faults_of_stack(host: Host) -> list[str]:
    """Return the present faults of the stack; without any, `status` must be green."""
    engine, project = host.engine, host.project
    link = engine.link(project)
    faults = [
        f"{name} does not run"
        for name in (*SERVICES, f"api-{link}", f"worker-{link}")
        if not (container := engine.container(project, name)) or not container.is_well
    ]
    worker = engine.container(project, f"worker-{link}")
    if worker and worker.is_well and not worker.takes_jobs:
        faults.append("the live slot's worker takes no jobs")
    if host.serving() is None:
        faults.append("no request succeeds")
    other = engine.container(project, f"worker-{idle_slot(host)}")
    if other and other.takes_jobs and not is_just_switched(host):
        faults.append("a worker runs in the idle slot")
    placed, live = engine.image_of(f"slipway/app:{link}"), host.live_container(project)
    if live and (placed is None or placed.release != engine.images[live.image].release):
        faults.append("the slot's tag is of another release than what runs")
    if host.state.is_disk_full:
        faults.append("the disk is full")
    if is_window_overdue(host):
        faults.append("the rollback window is over, and no process will end it")
    return faults + faults_of_data(host) + faults_of_checkout(host)


def knows_head(host: Host, image: str) -> bool:
    """Whether an image was built with the newest migration of the database."""
    database = host.database()
    names = [revision.identifier for revision in known_migrations(host, image)]
    return database is None or not database.head or database.head in names


def stale_services(host: Host) -> list[str]:
    """Return the running services that mount files of a folder that no longer exists."""
    return [
        container.service
        for container in host.engine.containers.values()
        if container.state == "running" and not os.path.isdir(container.checkout)
    ]


def faults_of_checkout(host: Host) -> list[str]:
    """Return how `.env`, the secrets and the folder differ from the running containers."""
    faults = [f"{name} does not open its data" for name in lost_secrets(host)]
    faults += [f"{checkout} owns the stack" for checkout in other_checkouts(host)]
    faults += [f"{name} mounts files of a folder that is gone" for name in stale_services(host)]
    if is_of_another_project(host):
        faults.append(".env names another project")
    return faults


def is_of_another_project(host: Host) -> bool:
    """Whether `.env` names another project than the stack's."""
    values = host.compose.values()
    return bool(values) and (values.get("COMPOSE_PROJECT_NAME") or "slipway") != host.project


def is_placed(host: Host, name: str) -> bool:
    """Whether the slot of the link, or blue, has an image of a release."""
    image = host.engine.image_of(f"slipway/app:{host.engine.link(host.project) or 'blue'}")
    release = host.state.names.get(name, name)
    return image is not None and (name.isdecimal() or image.release == release)


def is_anything_placed(host: Host) -> bool:
    """Whether the slot of the link, or blue, has a release."""
    return (
        host.engine.image_of(f"slipway/app:{host.engine.link(host.project) or 'blue'}") is not None
    )


def is_upgrade_cut_off(host: Host) -> bool:
    """Whether Postgres' image has a version for which there is no data directory yet."""
    volume = host.engine.volumes.get(f"{host.project}_postgres")
    names = ("slipway/app-postgres:current", host.compose.values().get("POSTGRES_IMAGE", ""))
    images = filter(None, map(host.engine.image_of, names))
    if volume is None or not volume.directories:
        return False
    return any(str(image.version) not in volume.directories for image in images)


def setting(values: Mapping[str, str], key: str) -> str:
    """Return a value or its default."""
    return values.get(key) or KEYS[key].default


def faults_of_data(host: Host) -> list[str]:
    """Return the faults of the schema and the backups."""
    database, live = host.database(), host.live_container(host.project)
    faults = []
    if database and live:
        known = known_migrations(host, live.image)
        names = [revision.identifier for revision in known]
        waiting = known[names.index(database.head) + 1 :] if database.head in names else []
        if not database.head or any(revision.phase == "pre" for revision in waiting):
            faults.append("the schema is behind the live release")
    faults += [
        f"{service} runs with another {name}"
        for service, name in (("backup", "backup_key"), ("redis", "redis_password"))
        if (container := host.engine.container(host.project, service))
        and container.state == "running"
        and container.secrets[name] != host.compose.read_secret(name)
    ]
    return faults


def known_migrations(host: Host, image: str) -> list[Revision]:
    """Return the migrations in an image."""
    return migrations.parse_label(host.engine.images[image].labels.get("slipway.migrations", ""))


def is_settled(host: Host) -> bool:
    """Whether no worker drains, no secret was edited, and the newest entry is a success.

    Nor does a process still have to end a window that is over.

    Otherwise `status` may mark a row although everything works.
    """
    if host.state.secrets or is_window_over(host):
        return False
    entries = [entry for entry in ledger(host) if entry.get("result") != "refused"]
    other = host.engine.container(host.project, f"worker-{idle_slot(host)}")
    is_draining = other is not None and other.state == "running"
    return not is_draining and (not entries or entries[-1].get("result") == "done")


def is_window_over(host: Host) -> bool:
    """Whether the newest deployment is older than its rollback window, which is still open."""
    begun = ""
    for entry in ledger(host):
        action, result = entry.get("action"), entry.get("result")
        if action == "retire" or result in {"begun", "rolled back"}:
            begun = ""
        elif action in {"deploy", "rollback"} and result == "done":
            begun = str(entry["at"])
    if not begun:
        return False
    age = host.clock.moment() - datetime.fromisoformat(begun)
    return age.total_seconds() >= WINDOW_SECONDS + OVERDUE_SECONDS


def is_window_overdue(host: Host) -> bool:
    """Whether the rollback window is over, and no process waits to end it."""
    return not host.state.scheduled and is_window_over(host)


def is_just_switched(host: Host) -> bool:
    """Whether a worker of the idle slot may still finish jobs after a deploy or a rollback."""
    last = (ledger(host) or [{}])[-1]
    if last.get("action") not in {"deploy", "rollback"}:
        return False
    ended = datetime.fromisoformat(str(last["at"]))
    return (host.clock.moment() - ended).total_seconds() < WORKER_SECONDS


def checkout_release(host: Host) -> str:
    """Return the name of the checkout's release."""
    return host.state.releases[host.state.place]


def signature(host: Host) -> tuple[object, ...]:
    """Return all facts on which `status` depends: for equal signatures, it prints the same."""
    engine = host.engine
    database = host.database()
    state, secrets = f"{host.folder}/state", f"{host.compose.secret('tls').parent}"
    folders = (state, f"{state}/fingerprints", f"{state}/slots", f"{state}/nginx", secrets)
    return (
        host.state.place,
        host.state.is_disk_full,
        tuple(
            (c.identifier, c.state, c.health, c.host, c.ends_at is None, tuple(c.secrets.values()))
            for c in engine.containers.values()
        ),
        tuple((name, volume.backups.key) for name, volume in engine.volumes.items()),
        tuple((name, traffic.counts.started) for name, traffic in engine.traffic.items()),
        engine.link(host.project),
        tuple(engine.tags.get(f"slipway/app:{slot}") for slot in SLOTS),
        engine.certificate,
        (database.password, *database.applied) if database else None,
        is_just_switched(host),
        tuple(map(_contents, folders)),
        content_of(f"{host.root}/.env"),
    )


def _contents(folder: str) -> list[tuple[str, bytes | None]]:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(entry.name, content_of(entry.path) if entry.is_file() else None) for entry in entries]


def named(words: Sequence[str]) -> frozenset[str]:
    """Return the services that `up --apply` names."""
    given = words[words.index("--apply") + 1] if "--apply" in words else ""
    return frozenset(SERVICES if given == "all" else [given])
