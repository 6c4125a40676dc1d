"""What can be done with a slot: place a release, start, probe, make live, stop; each is one printed command or two."""

from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation, services
from stack.runner import Runner

FRONT_DOOR_SECONDS = 5


@dataclass(frozen=True)
class Slots:
    """Both slots as the system shows them at one moment."""

    live: str
    idle: str
    live_release: str
    idle_release: str


def look(runner: Runner, project: Project) -> Slots:
    """Ask what is live and which release is placed where."""
    live = observation.live_slot(runner, project)
    idle = next(slot for slot in observation.SLOTS if slot != live)
    releases = {slot: observation.slot_release(runner, project, slot) for slot in observation.SLOTS}
    return Slots(live, idle, releases[live], releases[idle])


def place(runner: Runner, project: Project, release: str, slot: str) -> None:
    """Place a release in a slot: give its image the slot's tag."""
    runner.run(engine.tag_argv(f"{project.image}:{release}", f"{project.image}:{slot}"))


def start(runner: Runner, project: Project, service: str, *, anew: bool = False) -> None:
    """Start one service of a slot and wait until the engine calls it healthy.

    `anew` replaces one that runs already: a process reads its secrets once, and Compose sees no change in them.

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
    runner.run(engine.compose_argv("exec", "--no-TTY", "nginx", "sh", "-ec", move))


def await_front_door(runner: Runner, project: Project, release: str, slot: str) -> None:
    """Wait until a request through the front door is answered by this release from this slot.

    Raises:
        Failure: where it is not within FRONT_DOOR_SECONDS.
    """
    if runner.is_dry:
        return
    deadline = runner.clock() + FRONT_DOOR_SECONDS
    while True:
        answer = observation.ask(runner, project, "/readyz")
        if answer.status == 200 and observation.answered_by(answer) == (release, slot):
            return
        if runner.clock() > deadline:
            found, there = observation.answered_by(answer)
            seen = (
                f"{answer.status} from release '{found}' in slot '{there}'"
                if answer.status
                else answer.error
            )
            raise Failure(
                f"the front door does not answer with release {release} from slot {slot}: {seen}",
                runbook="deploy-failed-after-the-switch",
            )
        runner.sleep(0.05)


def release_worker(runner: Runner, slot: str) -> None:
    """Send the worker its first signal: it takes no new job and finishes those in hand."""
    runner.run(engine.compose_argv("kill", "--signal", "SIGTERM", f"worker-{slot}"), check=False)


def stop(runner: Runner, services: list[str]) -> None:
    """Stop services within their grace: the API drains its connections, the worker its jobs."""
    runner.run(engine.compose_argv("stop", *services), timeout=120)


def remove(runner: Runner, services: list[str]) -> None:
    """Remove the containers of services that never served."""
    runner.run(engine.compose_argv("rm", "--stop", "--force", *services), timeout=120)
