"""Starts the services of the stack in their order, and waits for the front door."""

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import (
    backup_service,
    database,
    deployments,
    fingerprints,
    front_door,
    observation,
    ports,
    services,
    slots,
)
from stack.parts.steps import Steps
from stack.runner import Runner

# The first start of Postgres creates its data directory: measured 5 s on two shared cores, more on
# a slow disk.
DATA_SECONDS = 120
SLOT_SECONDS = 90
FRONT_DOOR_SECONDS = 20


def bring_up(runner: Runner, steps: Steps, project: Project, slot: str, release: str) -> None:
    """Run the steps that start services."""
    with steps.step("data") as report:
        ports.check(runner, project)
        backup_service.refuse_new_database(runner, project)
        with fingerprints.proof(runner, project):
            _start(runner, project, ["postgres", "redis", "backup"], DATA_SECONDS)
        report(database.complete(runner))
    with steps.step("migrate") as report:
        # An empty database gets all migrations at once. Unless Postgres reports a missing table,
        # the database is in use: `post` migrations run only at the end of the rollback window.
        is_empty = database.is_empty(runner)
        migrated = runner.run(engine.migrate(slot, is_pre_only=not is_empty))
        report(migrated.out.strip().splitlines()[-1] if migrated.out.strip() else "done")
    with steps.step("slot and front door") as report:
        names = [*_missing(runner, project, slot), "nginx", *_sink(project)]
        _start(runner, project, names, SLOT_SECONDS)
        _repair(runner, project, slot)
        report(_await_release(runner, project, release))


def _missing(runner: Runner, project: Project, slot: str) -> list[str]:
    """Return the services of a slot that do not serve; only a deploy replaces those that serve.

    An API that does not know SLIPWAY_HOST would refuse every request through the new nginx.
    """
    names = engine.slot_services(slot)
    if project.is_development:
        return names  # Compose replaces those whose image was built again
    if not deployments.knows_host(runner, project, slot):
        return names
    well = {each.name for each in observation.services(runner, project) if each.is_well}
    return [name for name in names if name not in well]


def _sink(project: Project) -> list[str]:
    return ["sink"] if project.is_development else []


def _repair(runner: Runner, project: Project, slot: str) -> None:
    """Make a lost live link again, and stop a worker that still runs in the idle slot."""
    if runner.is_dry:
        return
    if not observation.live_link(runner, project):
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
    return f"{project.url} answers with release {release} from slot {slot}"


def _certificate_hint(project: Project, error: str) -> list[str]:
    if "certificate" not in error:
        return []
    return [
        f"the certificate in {project.certificate.parent} must be for {project.host} and not "
        "expired; if you move it and its key away, up.sh creates a self-signed pair"
    ]
