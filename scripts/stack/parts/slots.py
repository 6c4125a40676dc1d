"""The slots: place a release, start, probe, make live, drain, stop, remove."""

from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import front_door, observation, services
from stack.runner import Runner

FRONT_DOOR_SECONDS = 5
# Above the sum of the stop_grace_period of a slot's services.
STOP_SECONDS = 120


@dataclass(frozen=True)
class Slots:
    """The state of both slots at one moment."""

    live: str
    idle: str
    live_release: str
    idle_release: str


def look(runner: Runner, project: Project) -> Slots:
    """Read what is live and which release each slot has."""
    live = observation.live_slot(runner, project)
    idle = next(slot for slot in observation.SLOTS if slot != live)
    releases = {slot: observation.slot_release(runner, project, slot) for slot in observation.SLOTS}
    return Slots(live, idle, releases[live], releases[idle])


def place(runner: Runner, project: Project, release: str, slot: str) -> None:
    """Place a release in a slot: give its image the slot's tag."""
    runner.run(engine.tag_image(f"{project.image}:{release}", f"{project.image}:{slot}"))


def start(runner: Runner, project: Project, service: str, *, anew: bool = False) -> None:
    """Start a service of a slot and wait until it is healthy.

    `anew` replaces a running container: a process reads its secrets once, and Compose does not
    detect a changed secret.

    Raises:
        Failure: with the service's last log lines.
    """
    seconds = project.ready_seconds
    services.start(
        runner, project, service, seconds=seconds, runbook="deploy-waits-for-health", anew=anew
    )


def make_live(runner: Runner, slot: str) -> None:
    """Switch: rename a new link over the live one."""
    move = (
        f"ln -sfn {slot}.sock /run/slots/next.sock && mv -T /run/slots/next.sock {observation.LINK}"
    )
    runner.run(engine.exec_in("nginx", "sh", "-ec", move))


def wait_for_front_door(runner: Runner, project: Project, release: str, slot: str) -> None:
    """Wait until this release in this slot answers a request through the front door.

    Raises:
        Failure: if it does not answer within FRONT_DOOR_SECONDS.
    """
    is_answered, answer = front_door.wait_for_answer(
        runner, project, FRONT_DOOR_SECONDS, release=release, slot=slot, pause_seconds=0.05
    )
    if not is_answered:
        raise Failure(
            f"the front door does not answer with release {release} from slot {slot}: "
            f"{front_door.describe(answer)}",
            hints=[f"./scripts/logs.sh nginx api-{slot}", "./scripts/status.sh"],
            runbook="deploy-failed-after-the-switch",
        )


def drain_worker(runner: Runner, slot: str) -> None:
    """Send the worker its first signal: it fetches no new job and finishes its running jobs."""
    worker = f"worker-{slot}"
    words = ["kill", "--signal", "SIGTERM", worker]
    signalled = runner.run(engine.compose(*words, may_fail=True))
    if signalled.code != 0:
        # Either the worker has already ended, and a stop does nothing. Or the engine lost the
        # signal, and the former release's worker would fetch jobs until the end of the window.
        runner.run(engine.compose("stop", worker, timeout_seconds=STOP_SECONDS, may_fail=True))


def stop(runner: Runner, services: list[str]) -> None:
    """Stop services within their grace period: the API drains connections, the worker its jobs."""
    runner.run(engine.compose("stop", *services, timeout_seconds=STOP_SECONDS))


def remove(runner: Runner, services: list[str]) -> None:
    """Remove the containers of services that were never live."""
    command = engine.compose("rm", "--stop", "--force", *services, timeout_seconds=STOP_SECONDS)
    runner.run(command)
