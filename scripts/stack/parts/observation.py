"""Reads from the running system what is live and in which state; changes and keeps nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.failure import Failure
from stack.https import Answer, Question
from stack.parts import applied, ledger, slot_files
from stack.runner import Result, Runner, failure_of

SLOTS = ("blue", "green")
READY, DEGRADED = "ready", "degraded"
LINK = "/run/slots/live.sock"
ALL_TAKEN = "sorry, too many clients already"  # also while the reserved connections are taken
# Chosen: a few seconds in all, with the time that each query takes.
CONNECT_RETRIES = 10
RETRY_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Service:
    """One container of the project, as the engine lists it.

    Attributes:
        ports: the addresses and ports that it publishes on the host.
    """

    name: str
    state: str
    health: str
    status: str
    ports: frozenset[tuple[str, int]] = frozenset()

    @property
    def is_well(self) -> bool:
        """Whether the container runs, and its health check, if there is one, succeeds."""
        return self.state == "running" and self.health in {"", "healthy"}


def live_link(runner: Runner, project: Project) -> str:
    """Return the slot that the live link names, or an empty text if there is no link.

    The link is read in nginx's container, or in the volume if nginx does not run.

    Raises:
        Failure: if the link cannot be read: a guess could place a release into the wrong slot.
    """
    question = ["sh", "-c", f"if [ -L {LINK} ]; then readlink {LINK}; else echo none.sock; fi"]
    answer = runner.read(engine.exec_in("nginx", *question, may_fail=True))
    if answer.code != 0:
        if not exists(runner, engine.inspect_volume(f"{project.name}_slots")):
            return ""
        mount = f"{project.name}_slots:/run/slots:ro"
        command = engine.throwaway(
            project.nginx_image, question, mounts=[mount], user="nginx:10001", environment={}
        )
        answer = runner.read(replace(command, may_fail=True))
    slot = answer.out.strip().removesuffix(".sock")
    if answer.code != 0 or slot not in {*SLOTS, "none"}:
        raise Failure(
            f"the live link cannot be read: {answer.err.strip() or slot or 'no answer'}",
            hints=["docker compose exec nginx ls -l /run/slots", "docker version"],
            runbook="lost-live-link",
        )
    return "" if slot == "none" else slot


def live_slot(runner: Runner, project: Project) -> str:
    """Return the live slot.

    Without a link, the slot that the ledger names if its API runs, else the running slot, else
    blue.
    """
    slot = live_link(runner, project)
    if slot:
        return slot
    running = {service.name for service in services(runner, project) if service.state == "running"}
    # For 30 s after a switch both workers run: the former one finishes its jobs.
    recorded = ledger.last_live_slot(project)
    if f"api-{recorded}" in running:
        return recorded
    # The worker first: in the rollback window both APIs run, but only the live slot's worker.
    for kind in ("worker", "api"):
        for slot in SLOTS:
            if f"{kind}-{slot}" in running:
                return slot
    return SLOTS[0]


def services(runner: Runner, project: Project) -> list[Service]:
    """Return every container of the project, running or not."""
    listing = runner.read(engine.compose("ps", "--all", "--format", "json"))
    containers = [json.loads(line) for line in listing.out.splitlines() if line.startswith("{")]
    return [
        Service(
            entry["Service"],
            entry["State"],
            entry.get("Health", ""),
            entry.get("Status", ""),
            frozenset(
                (str(each.get("URL", "")), int(each.get("PublishedPort", 0)))
                for each in entry.get("Publishers") or ()
            ),
        )
        for entry in sorted(containers, key=lambda entry: str(entry["Service"]))
    ]


def sql(runner: Runner, query: str) -> Result:
    """Query Postgres as its superuser, inside its container; columns are separated by |.

    An application that tries to connect in vain uses even the connections that are reserved for an
    operator, each for some milliseconds; so a refusal for that reason is tried again.
    The caller judges every exit code.
    """
    result = runner.read(engine.psql(query, may_fail=True))
    for _ in range(CONNECT_RETRIES):
        if ALL_TAKEN not in result.err:
            break
        runner.sleep(RETRY_PAUSE_SECONDS)
        result = runner.read(engine.psql(query, may_fail=True))
    return result


def ask_engine(runner: Runner, question: Command) -> str:
    """Return what the engine prints about an image or a volume; empty if it does not exist.

    Raises:
        Failure: if no engine answers: the image or volume may exist.
    """
    result = _ask_engine(runner, question)
    return result.out.strip() if result.code == 0 else ""


def exists(runner: Runner, question: Command) -> bool:
    """Whether the engine has the image or the volume that a question asks about."""
    return _ask_engine(runner, question).code == 0


def _ask_engine(runner: Runner, question: Command) -> Result:
    result = runner.read(question)
    if result.code != 0 and engine.is_unreachable(result.err):
        raise failure_of(question, result)
    return result


def slot_release(runner: Runner, project: Project, slot: str) -> str:
    """Return the release whose image is placed in a slot, or an empty text.

    If two images have the same label, the slot's file contains the name that distinguishes them.
    """
    label = ask_engine(runner, engine.image_label(f"{project.image}:{slot}", engine.RELEASE_LABEL))
    name = slot_files.of_slot(project, slot).get(slot_files.RELEASE, "")
    return name if label and name.startswith(f"{label}-") else label


def ask(
    runner: Runner,
    project: Project,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    is_verified: bool = True,
) -> Answer:
    """Send a request to the front door as a client does; a request with a body is a POST.

    The request goes to the port on which nginx listens now, even if `.env` has another port.
    """
    door = applied.front_door(project)
    question = Question(
        host=door.host,
        port=door.https_port,
        path=path,
        trust=project.certificate if is_verified else None,
        address=door.dial_address,
        method="GET" if body is None else "POST",
        body="" if body is None else json.dumps(body),
        headers=headers or {},
    )
    answer = runner.ask(question)
    wanted = (project.dial_address, project.https_port)
    if not answer.status and wanted != (door.dial_address, door.https_port):
        # A killed `up.sh --apply nginx` may have replaced nginx without recording it.
        other = runner.ask(replace(question, address=wanted[0], port=wanted[1]))
        answer = other if other.status else answer
    if door.host != project.host and not answer.status and "certificate" in answer.error.lower():
        # The files in secrets/tls are already for the new name; nginx still has the former files.
        return runner.ask(replace(question, trust=None))
    return answer


def answered_by(answer: Answer) -> tuple[str, str]:
    """Return the release and the slot in the headers of an answer, or empty texts."""
    headers = {key.lower(): value for key, value in answer.headers.items()}
    return headers.get("x-slipway-release", ""), headers.get("x-slipway-slot", "")


def readiness(answer: Answer) -> tuple[str, str]:
    """Return the state in an answer of /readyz, and its failed checks.

    Both are empty for a service that answers with a status code alone.
    """
    try:
        body = json.loads(answer.body)
        state = str(body["status"])
    except (ValueError, KeyError, TypeError):
        return "", ""
    checks = body.get("checks")
    failed = [
        f"{name}: {check.get('error') or 'failed'}"
        for name, check in (checks.items() if isinstance(checks, dict) else ())
        if isinstance(check, dict) and check.get("ok") is False
    ]
    return state, ", ".join(failed)


def what_serves(runner: Runner, project: Project) -> str:
    """Return the last line of every command: what serves now."""
    answer, url = ask(runner, project, "/version"), applied.front_door(project).url
    note = ""
    if "certificate" in answer.error and not project.certificate.exists():
        # Such as a second checkout on the host of the first.
        answer = ask(runner, project, "/version", is_verified=False)
        note = f" (not verified: {project.certificate} is missing)"
    release, slot = answered_by(answer)
    if answer.status == 200 and release:
        return f"live: release {release} in slot {slot}, answering at {url}{note}"
    error = f"HTTP {answer.status}" if answer.status else answer.error
    try:
        present = services(runner, project)
    except Failure:
        names = "not known, because the engine does not answer"
    else:
        running = [service.name for service in present if service.state == "running"]
        names = ", ".join(running) or "no container"
    return f"live: nothing answers at {url} ({error}); running: {names}"
