"""Starts the services of the stack in their order, and waits for the front door."""

from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import (
    applied,
    backup_service,
    database,
    deployments,
    edge,
    edge_settings,
    fingerprints,
    front_door,
    observation,
    services,
    slots,
    smoke,
)
from stack.parts.inventory import Container, Inventory
from stack.parts.replacement import Replacement
from stack.parts.steps import Steps
from stack.runner import Runner

# The first start of Postgres creates its data directory: measured 5 s on two shared cores, more on
# a slow disk.
DATA_SECONDS = 120
SLOT_SECONDS = 90
DATA = ("postgres", "redis", "backup")
FRONT_DOOR_SECONDS = 20


@dataclass(frozen=True)
class Startup:
    """One start of the stack.

    Attributes:
        slot: the live slot.
        release: the release in the live slot.
        stock: the containers before the start.
        named: the services to replace even if they serve.
    """

    project: Project
    slot: str
    release: str
    stock: Inventory
    named: tuple[str, ...] = ()

    def replaced(self, *services: str) -> list[Container]:
        """Return the running containers of these services that are named."""
        running = {each.service: each for each in self.stock.running(self.project.name)}
        return [running[name] for name in services if name in {*self.named} & {*running}]


def bring_up(runner: Runner, steps: Steps, startup: Startup) -> None:
    """Start the missing services, then replace the named services, one after the other."""
    project, slot = startup.project, startup.slot
    # If the front door does not answer yet, a replacement may be the fix: then health decides.
    is_ready = not runner.is_dry and observation.ask(runner, project, "/readyz").status == 200
    replaced = startup.replaced(*DATA)
    with steps.step("data"):
        backup_service.refuse_new_database(runner, project)
        names = [name for name in DATA if name not in {each.service for each in replaced}]
        with fingerprints.proof(runner, project):
            _start_missing(runner, project, names, DATA_SECONDS)
    for container in replaced:
        _replace(runner, steps, startup, container, is_ready=is_ready)
    with steps.step("database") as report:
        report(database.complete(runner))
    with steps.step("migrate") as report:
        # An empty database gets all migrations at once. Unless Postgres reports a missing table,
        # the database is in use: `post` migrations run only at the end of the rollback window.
        is_empty = database.is_empty(runner)
        migrated = runner.run(engine.migrate(slot, is_pre_only=not is_empty))
        report(migrated.out.strip().splitlines()[-1] if migrated.out.strip() else "done")
    with steps.step("slot"):
        names = [*engine.slot_services(slot), "counter", "nginx", *_sink(project)]
        _start_missing(runner, project, names, SLOT_SECONDS)
        _repair(runner, project, slot)
    for container in startup.replaced("counter", "nginx"):
        _replace(runner, steps, startup, container, is_ready=is_ready)
    with steps.step("front door") as report:
        report(_await_release(runner, project, startup.release))
    with steps.step("nginx settings") as report:
        report(_reload_edge(runner, startup))


def _reload_edge(runner: Runner, startup: Startup) -> str:
    """Apply the keys of nginx that need no new container, and the live deployment's locations.

    A new SLIPWAY_HOST waits for a deploy as long as the live slot would refuse it.
    """
    if runner.is_dry:
        return "would reload nginx if its settings changed"
    project, slot = startup.project, startup.slot
    former = edge_settings.installed(project)
    files = edge_settings.wanted(project, smoke.read_locations(runner, project, slot))
    if files.host != former.host and not deployments.knows_host(runner, project, slot):
        files = files.with_host(former.host)
    edge.apply(runner, project, files, lambda: _await_release(runner, project, startup.release))
    return "kept as they are" if files == former else "reloaded"


def _replace(
    runner: Runner, steps: Steps, startup: Startup, container: Container, *, is_ready: bool
) -> None:
    def prove() -> None:
        if is_ready:
            _await_release(runner, project, startup.release)

    project, name = startup.project, container.service
    with steps.step(f"apply {name}") as report:
        facts = {"from": startup.release, "to": startup.release, "slot": startup.slot}
        replacement = Replacement(
            runner,
            project,
            container,
            DATA_SECONDS if name in DATA else SLOT_SECONDS,
            prove,
            facts,
        )
        with fingerprints.proof(runner, project):
            seconds = replacement.run()
        report(f"{name} serves with the settings of .env after {seconds:.1f} s")


def _start_missing(runner: Runner, project: Project, names: list[str], seconds: int) -> None:
    """Start services that do not serve; on a developer's stack, also replace changed services."""
    kept: list[str] = []
    if not project.is_development:
        names = services.list_missing(runner, project, names)
        kept = _list_kept(runner, project, names)
    created = [name for name in names if name not in kept]
    if kept:
        _await_kept(runner, project, kept, seconds)
    if created:
        _start(runner, project, created, seconds)
        applied.keep(runner, project, [name for name in created if name in applied.SERVICES])


def _list_kept(runner: Runner, project: Project, names: list[str]) -> list[str]:
    """Return the services of these that run, are not healthy, and have settings that wait.

    A busy server is unhealthy for a moment, and still serves. Compose would replace its container.
    """
    states = {each.name: each.state for each in observation.services(runner, project)}
    running = [name for name in names if states.get(name) == "running"]
    waiting = applied.waiting(runner, project) if running else {}
    return [name for name in running if name in waiting]


def _await_kept(runner: Runner, project: Project, names: list[str], seconds: int) -> None:
    """Wait until services are healthy in the containers that they have."""
    try:
        runbook = "a-service-keeps-restarting"
        services.start(runner, project, *names, seconds=seconds, runbook=runbook, is_kept=True)
    except Failure as failure:
        failure.hints += [
            f"./scripts/up.sh --apply {name} gives it the settings of .env" for name in names
        ]
        raise


def _sink(project: Project) -> list[str]:
    return ["sink"] if project.is_development else []


def _repair(runner: Runner, project: Project, slot: str) -> None:
    """Create a lost live link again, and stop a worker that still runs in the idle slot."""
    if runner.is_dry:
        return
    # A new nginx creates a lost link, but always to blue.
    if observation.live_link(runner, project) != slot:
        slots.make_live(runner, slot)
    idle = next(other for other in observation.SLOTS if other != slot)
    running = {
        service.name
        for service in observation.services(runner, project)
        if service.state == "running"
    }
    if f"worker-{idle}" in running:
        slots.stop(runner, [f"worker-{idle}"])


def _start(runner: Runner, project: Project, names: list[str], seconds: int) -> None:
    """Start services, including those that the engine would restart later."""
    waiting = [
        s.name
        for s in observation.services(runner, project)
        if s.name in names and s.state == "restarting"
    ]
    if waiting:
        # The engine waits up to a minute between restarts, and `up` skips such a container.
        runner.run(engine.compose("restart", *waiting))
    services.start(runner, project, *names, seconds=seconds, runbook="a-service-keeps-restarting")


def _await_release(runner: Runner, project: Project, release: str) -> str:
    if runner.is_dry:
        return "would ask the front door for the release"
    if "certificate" in observation.ask(runner, project, "/livez").error:
        edge.reload(runner)  # nginx still has the former files
    is_answered, answer = front_door.wait_for_answer(
        runner, project, FRONT_DOOR_SECONDS, release=release
    )
    if not is_answered:
        raise Failure(
            f"the front door did not answer with release {release} within {FRONT_DOOR_SECONDS} s "
            f"(last answer: {front_door.describe(answer)}, {answer.body[:300]})",
            hints=[
                *_certificate_hint(project, answer.error),
                "./scripts/logs.sh nginx",
                "./scripts/status.sh",
            ],
            runbook="site-down",
        )
    _, slot = observation.answered_by(answer)
    url = applied.front_door(project).url
    return f"{url} answers with release {release} from slot {slot}"


def _certificate_hint(project: Project, error: str) -> list[str]:
    if "certificate" not in error:
        return []
    return [
        f"the certificate in {project.certificate.parent} must be for {project.host} and not "
        "expired; if you move it and its key away, up.sh creates a self-signed pair"
    ]
