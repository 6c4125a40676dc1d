"""The smoke test: sends a release the requests of its own service.toml before the switch."""

from stack.commands import engine
from stack.config import service
from stack.config.project import Project
from stack.config.service import Request, Service
from stack.failure import Failure
from stack.https import Answer
from stack.parts import applied, edge_settings, observation, slot_files
from stack.runner import Runner
from stack.waiting import wait_until

# Partner: nginx/conf.d/80-probes.conf
PROBE_PORTS = {"blue": 8083, "green": 8084}
READINESS = Request("/readyz")
READINESS_SECONDS = 5  # chosen: the API repeats its checks every second or two


def probe(runner: Runner, project: Project, slot: str, request: Request) -> Answer:
    """Send a request to one slot through nginx, whether or not the slot is live.

    The slot gets the request in the same form as a client's request.
    """
    headers = {"Host": applied.front_door(project).host, **request.headers}
    if request.body:
        headers.setdefault("Content-Type", "application/json")
    words = [word for name, text in headers.items() for word in ("--header", f"{name}: {text}")]
    # The body is passed on standard input: other users of the host can see a program's arguments.
    words += ["--data-binary", "@-"] if request.body else []
    words += ["--head"] if request.method == "HEAD" else ["--request", request.method]
    url = f"http://127.0.0.1:{PROBE_PORTS[slot]}{request.path}"
    curl = ["curl", "--silent", "--show-error", "--include", "--max-time", "10", *words, url]
    asked = runner.read(engine.exec_in("nginx", *curl, stdin=request.body, may_fail=True))
    if asked.code != 0:
        return Answer(0, error=asked.err.strip())
    head, _, content = asked.out.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    pairs = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Answer(int(first.split()[1]), content, pairs)


def read_service(runner: Runner, slot: str) -> Service:
    """Return the service from service.toml of the release in a slot, whose API must run.

    The defaults describe an older release without that file.

    Raises:
        Failure: if the release does not show its file, or the file is invalid.
    """
    question = ["sh", "-c", f"[ ! -e {service.FILE} ] || cat {service.FILE}"]
    asked = runner.read(engine.exec_in(f"api-{slot}", *question, may_fail=True))
    if asked.code != 0:
        raise Failure(
            f"the release in slot {slot} does not show its {service.FILE}: {asked.err.strip()}",
            hints=[f"./scripts/logs.sh api-{slot}", "docker compose ps"],
            runbook="a-service-keeps-restarting",
        )
    return service.parse(asked.out, f"{service.FILE} of the release in slot {slot}")


def read_locations(runner: Runner, project: Project, slot: str) -> str:
    """Return the nginx locations of the deployment in a slot, and keep them for a rollback."""
    number = slot_files.number_of(slot_files.of_slot(project, slot))
    kept = edge_settings.kept_locations(project, number)
    if kept:
        return kept
    locations = edge_settings.locations_of(read_service(runner, slot))
    edge_settings.keep_locations(runner, project, number, locations)
    return locations


def check(runner: Runner, project: Project, slot: str, release: str) -> str:
    """Send the slot the requests of its release's service.toml and of SMOKE_PATHS.

    Raises:
        Failure: naming the first unexpected answer.
    """
    user = project.first_user
    values = {service.FIRST_USER: user.read_text(encoding="utf-8")} if user.exists() else {}
    answered, left_out = 0, list[str]()
    listed = read_service(runner, slot).smoke
    for request in (*listed, *service.requests(project.smoke_requests)):
        if not request.placeholders <= values.keys():
            left_out.append(request.name)
            continue
        answer = probe(runner, project, slot, request.filled(values))
        if answer.status in request.skip_on:
            left_out.append(f"{request.name} (HTTP {answer.status})")
            continue
        _expect(answer, request, release)
        try:
            values |= request.taken(answer.body)
        except ValueError as error:
            raise _smoke_failure(
                request, release, f"answered {answer.status}, but {error}", answer
            ) from None
        answered += 1
    return f"{answered} answers as expected" + (
        f"; left out: {', '.join(left_out)}" if left_out else ""
    )


def list_repeatable(runner: Runner, project: Project, slot: str) -> list[Request]:
    """Return the requests of the smoke test that the watch may repeat."""
    listed = (*read_service(runner, slot).smoke, *service.requests(project.smoke_requests))
    return [request for request in listed if request.is_repeatable]


def check_readiness(runner: Runner, project: Project, slot: str, live: str) -> None:
    """Refuse a slot that is degraded while the live slot is ready.

    Raises:
        Failure: naming the checks that fail.
    """
    # A process that has just started may not have reached Redis yet.
    fault = compare_readiness(runner, project, slot, live, READINESS_SECONDS)
    if fault:
        raise Failure(
            fault,
            hints=[
                "compare the secrets and settings that the two were started with",
                f"./scripts/logs.sh api-{slot}",
            ],
            runbook="deploy-failed-before-the-switch",
        )


def compare_readiness(
    runner: Runner, project: Project, slot: str, live: str, seconds: float
) -> str:
    """Return how a slot is worse than the live slot even after `seconds`, or an empty text.

    Both are asked at the same time: where Redis is down for both, a deploy may be the remedy.
    """
    reason = ""

    def is_no_worse() -> bool:
        nonlocal reason
        state, reason = observation.readiness(probe(runner, project, slot, READINESS))
        if state != observation.DEGRADED:
            return True
        beside, _ = observation.readiness(probe(runner, project, live, READINESS))
        return beside != observation.READY

    if wait_until(runner, is_no_worse, seconds):
        return ""
    why = reason or "it does not say why"
    return f"slot {slot} is degraded ({why}), and the live slot {live} is ready"


def _expect(answer: Answer, request: Request, release: str) -> None:
    answering, _ = observation.answered_by(answer)
    if (answer.status, answering) == (request.status, release):
        return
    result = f"{answer.status} from release '{answering}'" if answer.status else answer.error
    raise _smoke_failure(request, release, f"answered {result}, expected {request.status}", answer)


def _smoke_failure(request: Request, release: str, fault: str, answer: Answer) -> Failure:
    # The answer to a request with `take` may contain a token.
    is_secret = bool(request.take) and answer.status < 400
    body = "" if is_secret else answer.body[:200]
    return Failure(
        f"the smoke test of release {release} failed: {request.name} {fault}",
        hints=[
            "service.toml of the release and SMOKE_PATHS in .env list the requests",
            *([body] if body else []),
        ],
        runbook="deploy-failed-before-the-switch",
    )
