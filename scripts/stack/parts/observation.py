"""Reads from the running system what is live and in which state; changes and keeps nothing."""

import json
from dataclasses import dataclass
from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.https import Answer, Question
from stack.runner import Result, Runner

SLOTS = ("blue", "green")
LINK = "/run/slots/live.sock"
ALL_TAKEN = "sorry, too many clients already"  # also while the reserved connections are taken
# Chosen: a few seconds in all, with the time that each query takes.
CONNECT_RETRIES = 10
RETRY_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Service:
    """One container of the project as the engine sees it."""

    name: str
    state: str
    health: str
    status: str

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
    answer = runner.read(engine.exec_in("nginx", *question))
    if answer.code != 0:
        if runner.read(engine.inspect_volume(f"{project.name}_slots")).code != 0:
            return ""
        mount = f"{project.name}_slots:/run/slots:ro"
        command = engine.throwaway(
            project.nginx_image, question, mounts=[mount], user="nginx:10001", environment={}
        )
        answer = runner.read(command)
    slot = answer.out.strip().removesuffix(".sock")
    if answer.code != 0 or slot not in {*SLOTS, "none"}:
        raise Failure(
            f"the live link cannot be read: {answer.err.strip() or slot or 'no answer'}",
            hints=["docker compose exec nginx ls -l /run/slots", "docker version"],
            runbook="lost-live-link",
        )
    return "" if slot == "none" else slot


def live_slot(runner: Runner, project: Project) -> str:
    """Return the live slot; without a link, the running slot; without both, blue."""
    slot = live_link(runner, project)
    if slot:
        return slot
    running = {service.name for service in services(runner, project) if service.state == "running"}
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
        Service(entry["Service"], entry["State"], entry.get("Health", ""), entry.get("Status", ""))
        for entry in sorted(containers, key=lambda entry: str(entry["Service"]))
    ]


def sql(runner: Runner, query: str) -> Result:
    """Query Postgres as its superuser, inside its container; columns are separated by |.

    An application that tries to connect in vain uses even the connections that are reserved for an
    operator, each for some milliseconds; so a refusal for that reason is tried again.
    """
    result = runner.read(engine.psql(query))
    for _ in range(CONNECT_RETRIES):
        if ALL_TAKEN not in result.err:
            break
        runner.sleep(RETRY_PAUSE_SECONDS)
        result = runner.read(engine.psql(query))
    return result


def slot_release(runner: Runner, project: Project, slot: str) -> str:
    """Return the release whose image is placed in a slot, or an empty text."""
    result = runner.read(engine.image_label(f"{project.image}:{slot}", engine.RELEASE_LABEL))
    return result.out.strip() if result.code == 0 else ""


def ask(
    runner: Runner, project: Project, path: str, *, body: dict[str, Any] | None = None
) -> Answer:
    """Send a request to the front door as a client does; a request with a body is a POST."""
    return runner.ask(
        Question(
            host=project.host,
            port=project.https_port,
            path=path,
            trust=project.certificate,
            address=project.dial_address,
            method="GET" if body is None else "POST",
            body="" if body is None else json.dumps(body),
        )
    )


def answered_by(answer: Answer) -> tuple[str, str]:
    """Return the release and the slot in the headers of an answer, or empty texts."""
    headers = {key.lower(): value for key, value in answer.headers.items()}
    return headers.get("x-slipway-release", ""), headers.get("x-slipway-slot", "")


def what_serves(runner: Runner, project: Project) -> str:
    """Return the last line of every command: what serves now."""
    answer = ask(runner, project, "/version")
    release, slot = answered_by(answer)
    if answer.status == 200 and release:
        return f"live: release {release} in slot {slot}, answering at {project.url}"
    error = f"HTTP {answer.status}" if answer.status else answer.error
    running = [service.name for service in services(runner, project) if service.state == "running"]
    names = ", ".join(running) or "no container"
    return f"live: nothing answers at {project.url} ({error}); running: {names}"
