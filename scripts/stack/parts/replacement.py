"""Replaces the container of a service; if the new container fails, starts the former settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from stack.commands import engine
from stack.config.project import Project
from stack.failure import ROLLED_BACK, Failure
from stack.parts import applied, containers, ledger, services
from stack.parts.applied import Entry
from stack.parts.containers import Facts
from stack.parts.inventory import Container
from stack.parts.undo import Undo
from stack.runner import Runner

RUNBOOK = "a-service-keeps-restarting"
UNDO_ORDER = ("container", "record")


@dataclass
class Replacement:
    """The replacement of one running container.

    Attributes:
        former: the container that serves now.
        seconds: the time in which the new container must become healthy.
        prove: waits until the stack answers again.
        facts: the live release and its slot, for the ledger.
    """

    runner: Runner
    project: Project
    former: Container
    seconds: int
    prove: Callable[[], object]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """The name of the service."""
        return self.former.service

    def run(self) -> float:
        """Replace the container; return the duration in seconds.

        Raises:
            Failure: with code 4 if the former settings serve again, 5 if a person is needed.
        """
        runner = self.runner
        former = containers.inspect(runner, self.former.name)
        entry = applied.read(self.project).get(self.service, Entry())
        undo = Undo(UNDO_ORDER, vital=frozenset({"container"}), final=("record",))
        begun = runner.clock()
        with undo.on_failure(RUNBOOK):
            undo.push("record", self._record_failure)
            undo.push("container", partial(self._put_back, former, entry))
            self._start()
            applied.note(runner, self.project, self.service)  # the front door may have moved
            self.prove()
        seconds = runner.clock() - begun
        applied.keep(runner, self.project, [self.service], seconds)
        self._record("done", seconds={f"apply {self.service}": round(seconds, 1)})
        return seconds

    def _start(self, values: dict[str, str] | None = None) -> None:
        services.start(
            self.runner,
            self.project,
            self.service,
            seconds=self.seconds,
            runbook=RUNBOOK,
            anew=True,
            values=values,
        )

    def _put_back(self, former: Facts | None, entry: Entry, failure: Failure) -> None:
        """Start the service with the image and the values of the former container."""
        project = self.project
        images = {"nginx": project.nginx_image, "counter": project.counter_image}
        images |= dict.fromkeys(("postgres", "backup"), project.postgres_image)
        if former and self.service in images:
            self.runner.run(engine.tag_image(former.image, images[self.service]))
        self._start(_former_values(project, entry))
        applied.put_back(self.runner, project, self.service, entry)
        self.prove()
        failure.code = ROLLED_BACK
        failure.hints += [
            f"the former {self.service} serves again; .env has the new values, which still wait",
            f"correct them, then ./scripts/up.sh --apply {self.service}",
        ]

    def _record_failure(self, failure: Failure) -> None:
        self._record("failed", reason=failure.observation)

    def _record(self, result: str, **facts: object) -> None:
        if not self.runner.is_dry:
            facts = {**self.facts, "service": self.service, "result": result, **facts}
            ledger.record(self.runner, self.project, "apply", **facts)


def _former_values(project: Project, entry: Entry) -> dict[str, str]:
    """Return the variables that give Compose the former values instead of those of `.env`."""
    values = dict(entry.settings)
    if entry.files != project.setting("COMPOSE_FILE"):
        values["COMPOSE_FILE"] = entry.files or "compose.yaml"
    return values
