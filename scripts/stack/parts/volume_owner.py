"""Compares the user of a data service's image with the owner of its volumes; changes nothing.

The users postgres and redis have different numbers in official images and Debian's packages.
"""

from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.parts import applied, images, inventory
from stack.rules import findings
from stack.rules.findings import Finding
from stack.runner import Runner

RUNBOOK = "a-service-keeps-restarting"
MOUNT = "/volumes"
# Runs as root, because no other user can read the directories. Skips an empty volume: the engine
# gives it to the user of the first image that mounts it.
SCRIPT = (
    'id -u "$1"; for folder in "$2"/*; do'
    ' [ -z "$(ls -A "$folder")" ] || stat --format "%u ${folder##*/}" "$folder"; done'
)


@dataclass(frozen=True)
class Store:
    """The services and volumes of one base image.

    Attributes:
        base: the name of the base image, and of the user in it.
        services: the services that run from it.
        volumes: their volumes, without the name of the project.
    """

    base: str
    services: tuple[str, ...]
    volumes: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key of `.env` with the base image."""
        return f"{self.base.upper()}_IMAGE"


POSTGRES = Store(
    "postgres",
    ("postgres", "backup"),
    ("postgres", "backups", "postgres-socket", "scratch", "beside"),
)
STORES = (POSTGRES, Store("redis", ("redis",), ("redis",)))


def changed(project: Project) -> tuple[Store, ...]:
    """Return the stores for which `.env` names another image than their container was made from.

    The image of a container that runs is of the kind that its volumes need.
    """
    entries = applied.read(project)
    return tuple(
        store
        for store in STORES
        if store.services[0] not in entries or _former_image(project, store)
    )


def judge(
    runner: Runner, project: Project, stores: tuple[Store, ...] = STORES, *, way_out: str = ""
) -> list[Finding]:
    """Return the base images whose user does not own the volumes: a server could not read them.

    An image that is not on this host is not judged. `way_out` is a fix in the place of the
    commands that change the owner.
    """
    present = inventory.look(runner).volumes
    listed = []
    for store in stores:
        volumes = [name for name in store.volumes if f"{project.name}_{name}" in present]
        if not volumes or not images.has_image(runner, project.base(store.base)):
            continue
        number, owners = _read(runner, project, store, volumes)
        foreign = {name: owner for name, owner in owners.items() if owner != number}
        if not number.isdecimal():
            fault = f"{project.base(store.base)} does not show the number of its user {store.base}"
            fix = f"docker image inspect {project.base(store.base)}"
        elif foreign:
            names = ", ".join(f"{name} ({owner})" for name, owner in foreign.items())
            fault = (
                f"is of another kind: its user {store.base} has the number {number}, and another "
                f"number owns the volumes {names}"
            )
            fix = way_out or _ways_out(project, store, volumes)
        else:
            continue
        listed.append(Finding(store.key, fault, fix, RUNBOOK))
    return listed


def refuse_another(
    runner: Runner, project: Project, stores: tuple[Store, ...] = STORES, *, way_out: str = ""
) -> None:
    """Refuse a base image whose user does not own the volumes: its server could not read them.

    `way_out` is a hint that replaces the commands which change the owner.

    Raises:
        Failure: before any server is replaced, with the commands that change the owner.
    """
    findings.refuse(judge(runner, project, stores, way_out=way_out))


def _read(
    runner: Runner, project: Project, store: Store, volumes: list[str]
) -> tuple[str, dict[str, str]]:
    """Return the number of the image's user, and the owner of each volume that is not empty."""
    mounts = [f"{project.name}_{name}:{MOUNT}/{name}:ro" for name in volumes]
    words = ["sh", "-euc", SCRIPT, "sh", store.base, MOUNT]
    command = engine.throwaway(
        project.base(store.base), words, mounts=mounts, user="0:0", environment={}
    )
    number, *lines = runner.read(command).out.split("\n")
    pairs = [line.partition(" ") for line in lines if line]
    return number, {name: owner for owner, _, name in pairs}


def _former_image(project: Project, store: Store) -> str:
    """Return the image that the store's container was made from; empty if `.env` names it."""
    entry = applied.read(project).get(store.services[0])
    former = entry.settings.get(store.key, "") if entry else ""
    return "" if former == project.base(store.base) else former


def _ways_out(project: Project, store: Store, volumes: list[str]) -> str:
    """Return the fix: the former image, or the commands that give the new user the volumes."""
    change = engine.throwaway(
        project.base(store.base),
        ["chown", "--recursive", f"{store.base}:{store.base}", MOUNT],
        mounts=[f"{project.name}_{name}:{MOUNT}/{name}" for name in volumes],
        user="0:0",
        environment={},
    )
    commands = f"{engine.compose('stop', *store.services)} && {change} && ./scripts/up.sh"
    former = _former_image(project, store) or "the former image"
    return f"set {store.key} in .env to {former}; or, with some seconds of 503: {commands}"
