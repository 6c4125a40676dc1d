"""The slots: place a release, start, probe, make live, drain, stop, remove."""

import json
from dataclasses import dataclass

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.https import Answer
from stack.parts import front_door, observation, services
from stack.runner import Runner

# An API that is not ready after this long never will be; measured: 1 s on an idle machine.
READY_SECONDS = 60
FRONT_DOOR_SECONDS = 5
# Above each stop_grace_period of a slot's services, one after the other.
STOP_SECONDS = 120
# Partner: $slot_of_port in nginx/conf.d/40-live.conf.
PROBE_PORTS = {"blue": 8083, "green": 8084}
SMOKE_PATHS = "/readyz=200 /v1/items=401"


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
    runner.run(engine.tag_image(f"{project.image}:{release}", f"{project.image}:{slot}"))


def start(runner: Runner, project: Project, service: str, *, anew: bool = False) -> None:
    """Start one service of a slot and wait until the engine calls it healthy.

    `anew` replaces one that runs already: a process reads its secrets once, and Compose does not
    see a change in them.

    Raises:
        Failure: with the service's last log lines.
    """
    seconds = int(project.values.get("READY_SECONDS") or READY_SECONDS)
    services.start(
        runner, project, service, seconds=seconds, runbook="deploy-waits-for-health", anew=anew
    )


def probe(
    runner: Runner, project: Project, slot: str, path: str, *, token: str = "", body: str = ""
) -> Answer:
    """Ask a slot, live or not, through nginx, with the headers that a client's request gets."""
    headers = ["--header", f"Host: {project.host}"]
    if token:
        headers += ["--header", f"Authorization: Bearer {token}"]
    if body:
        headers += ["--header", "Content-Type: application/json", "--data", "@-"]
    url = f"http://127.0.0.1:{PROBE_PORTS[slot]}{path}"
    curl = ["curl", "--silent", "--show-error", "--include", "--max-time", "10", *headers, url]
    result = runner.read(engine.exec_in("nginx", *curl, stdin=body))
    if result.code != 0:
        return Answer(0, error=result.err.strip())
    head, _, content = result.out.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    pairs = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Answer(int(first.split()[1]), content, pairs)


def smoke(runner: Runner, project: Project, slot: str, release: str) -> str:
    """Ask the slot for the release, for the paths of SMOKE_PATHS, and for a page of items as the first user.

    Raises:
        Failure: naming the first answer that was not the expected one.
    """
    checks = (project.values.get("SMOKE_PATHS") or SMOKE_PATHS).split()
    for check in checks:
        path, _, status = check.partition("=")
        answer = probe(runner, project, slot, path)
        _expect(answer, path, int(status or 200), release)
    if not _has_first_user(project):
        return f"{len(checks)} answers as expected"
    user = (project.secrets / "first_user.json").read_text(encoding="utf-8")
    answer = probe(runner, project, slot, "/v1/users/login", body=user)
    if answer.status in {401, 404, 405}:
        # The user was removed, or the service has no such route: then the paths above are the smoke test.
        return f"{len(checks)} answers as expected; the first user cannot log in (HTTP {answer.status})"
    _expect(answer, "/v1/users/login", 200, release)
    token = str(json.loads(answer.body)["access_token"])
    _expect(
        probe(runner, project, slot, "/v1/items", token=token),
        "/v1/items with a token",
        200,
        release,
    )
    return f"{len(checks) + 2} answers as expected"


def _has_first_user(project: Project) -> bool:
    return (project.secrets / "first_user.json").exists()


def _expect(answer: Answer, path: str, status: int, release: str) -> None:
    found, _ = observation.answered_by(answer)
    if (answer.status, found) == (status, release):
        return
    seen = f"{answer.status} from release '{found}'" if answer.status else answer.error
    raise Failure(
        f"the smoke test of release {release} failed: {path} answered {seen}, expected {status}",
        hints=["SMOKE_PATHS in .env says which paths are asked for", answer.body[:200]]
        if answer.body
        else [],
        runbook="deploy-failed-before-the-switch",
    )


def make_live(runner: Runner, slot: str) -> None:
    """Switch: rename a new link over the live one."""
    move = (
        f"ln -sfn {slot}.sock /run/slots/next.sock && mv -T /run/slots/next.sock {observation.LINK}"
    )
    runner.run(engine.exec_in("nginx", "sh", "-ec", move))


def wait_for_front_door(runner: Runner, project: Project, release: str, slot: str) -> None:
    """Wait until a request through the front door is answered by this release from this slot.

    Raises:
        Failure: where it is not within FRONT_DOOR_SECONDS.
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
    """Send the worker its first signal: it takes no new job and finishes those in hand."""
    # The signal may fail: a worker that has ended already drains nothing.
    words = ["kill", "--signal", "SIGTERM", f"worker-{slot}"]
    runner.run(engine.compose(*words, may_fail=True))


def stop(runner: Runner, services: list[str]) -> None:
    """Stop services within their grace: the API drains its connections, the worker its jobs."""
    runner.run(engine.compose("stop", *services, timeout_seconds=STOP_SECONDS))


def remove(runner: Runner, services: list[str]) -> None:
    """Remove the containers of services that never served."""
    command = engine.compose("rm", "--stop", "--force", *services, timeout_seconds=STOP_SECONDS)
    runner.run(command)
