"""Lists the containers and the volumes of this host, of every project; changes nothing."""

from dataclasses import dataclass

from stack.commands import engine
from stack.failure import Failure
from stack.runner import Result, Runner

NOT_INSTALLED = 127
RUNNING = ("running", "restarting", "paused")


@dataclass(frozen=True)
class Container:
    """One container that Compose created.

    Attributes:
        checkout: the directory of the checkout from which it was created.
    """

    name: str
    state: str
    project: str
    service: str
    checkout: str

    @property
    def is_running(self) -> bool:
        """Whether it has a process, or the engine will restart it."""
        return self.state in RUNNING


@dataclass(frozen=True)
class Inventory:
    """The containers and volumes of every project."""

    containers: tuple[Container, ...] = ()
    volumes: frozenset[str] = frozenset()

    def volumes_of(self, project: str) -> list[str]:
        """Return the volumes of a project that hold data, ordered by name."""
        # The loss of any other volume of the stack loses no data (compose.yaml).
        names = (f"{project}_{name}" for name in ("backups", "postgres", "redis"))
        return [name for name in names if name in self.volumes]

    def running(self, project: str) -> list[Container]:
        """Return the running containers of a project."""
        return [each for each in self.containers if each.project == project and each.is_running]


def look(runner: Runner) -> Inventory:
    """Return the containers and the volumes; empty where no engine is installed, and in a dry run
    where none answers.

    Raises:
        Failure: if the engine does not answer: silence must not mean "there is no volume".
    """
    containers = runner.read(engine.list_compose_containers())
    volumes = runner.read(engine.LIST_VOLUMES)
    for answer in (containers, volumes):
        if answer.code == NOT_INSTALLED or (answer.code != 0 and runner.is_dry):
            return Inventory()
        if answer.code != 0:
            raise _silence(answer)
    rows = [line.split("\t") for line in containers.out.splitlines()]
    return Inventory(
        tuple(Container(*row) for row in rows if len(row) == 5),
        frozenset(volumes.out.split()),
    )


def _silence(answer: Result) -> Failure:
    return Failure(
        f"the engine does not list its containers and volumes: {answer.err.strip()[-300:]}",
        hints=["nothing was touched", "docker version"],
        runbook="site-down",
    )
