"""Compares the user of a data service's image with the owner of its volumes; changes nothing.

The users postgres and redis have different numbers in official images and Debian's packages.
"""

from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import images, inventory
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


POSTGRES = Store(
    "postgres",
    ("postgres", "backup"),
    ("postgres", "backups", "postgres-socket", "scratch", "beside"),
)
STORES = (POSTGRES, Store("redis", ("redis",), ("redis",)))


def refuse_another(
    runner: Runner, project: Project, stores: tuple[Store, ...] = STORES, *, way_out: str = ""
) -> None:
    """Refuse a base image whose user does not own the volumes: its server could not read them.

    `way_out` is a hint that replaces the commands which change the owner.

    Raises:
        Failure: before any server is replaced, with the commands that change the owner.
    """
    present = inventory.look(runner).volumes
    faults, hints = [], ["no server was touched"]
    for store in stores:
        volumes = [name for name in store.volumes if f"{project.name}_{name}" in present]
        image = project.base(store.base)
        if not volumes or not images.has_image(runner, image):
            continue
        number, owners = _read(runner, project, store, volumes)
        foreign = {name: owner for name, owner in owners.items() if owner != number}
        if foreign:
            listed = ", ".join(f"{name} ({owner})" for name, owner in foreign.items())
            faults.append(
                f"{store.base.upper()}_IMAGE is of another kind: its user {store.base} has the "
                f"number {number}, and another number owns the volumes {listed}"
            )
            hints += [way_out] if way_out else _list_ways_out(project, store, volumes)
    if faults:
        raise Failure("; ".join(faults), hints=hints, runbook=RUNBOOK)


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
    if not number.isdecimal():
        raise Failure(
            f"{project.base(store.base)} does not show the number of its user {store.base}",
            hints=["no server was touched", f"docker image inspect {project.base(store.base)}"],
            runbook=RUNBOOK,
        )
    pairs = [line.partition(" ") for line in lines if line]
    return number, {name: owner for owner, _, name in pairs}


def _list_ways_out(project: Project, store: Store, volumes: list[str]) -> list[str]:
    """Return the hints: the former image, or the commands that give its user the volumes."""
    change = engine.throwaway(
        project.base(store.base),
        ["chown", "--recursive", f"{store.base}:{store.base}", MOUNT],
        mounts=[f"{project.name}_{name}:{MOUNT}/{name}" for name in volumes],
        user="0:0",
        environment={},
    )
    commands = f"{engine.compose('stop', *store.services)} && {change} && ./scripts/up.sh"
    return [
        f"set {store.base.upper()}_IMAGE in .env back to the former image",
        f"or, with some seconds of 503: {commands}",
    ]
