"""Starts services and waits until each is healthy; removes containers until none is left."""

from collections.abc import Iterable, Mapping

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation, slot_files
from stack.parts.observation import Service
from stack.runner import Result, Runner
from stack.waiting import wait_until

LOG_LINES = "25"
END_SECONDS = 60


def start(
    runner: Runner,
    project: Project,
    *names: str,
    seconds: int,
    runbook: str,
    anew: bool = False,
    is_kept: bool = False,
    values: Mapping[str, str] | None = None,
) -> None:
    """Start services, and replace those whose configuration changed; `anew` replaces each.

    With `is_kept`, a container that exists is not replaced.
    The services of a slot get the limits of their deployment, even if `.env` has changed since.
    Compose takes the variables `values` instead of those of `.env`.

    Raises:
        Failure: naming the services that are not healthy after `seconds`, with their last lines.
    """
    options = ["--detach", "--no-deps", *(["--force-recreate"] if anew else [])]
    options += ["--no-recreate"] if is_kept else []
    options += ["--wait", "--wait-timeout", str(seconds)]
    environment = {**slot_files.limits_of(project, names), **(values or {})}
    words = ["up", *options, *names]
    limit = seconds + 60
    up = engine.compose(*words, env=environment, timeout_seconds=limit, may_fail=True)
    started = runner.run(up)
    if runner.is_dry:
        return
    # (!) Compose 2.26 may exit with 0 when the time is over (observed once in 36 runs). Only the
    # containers show their health.
    unhealthy = [
        service
        for service in observation.services(runner, project)
        if service.name in names and not service.is_well
    ]
    if started.code == 0 and not unhealthy:
        return
    raise _failure_of(runner, names, unhealthy, started, seconds=seconds, runbook=runbook)


def list_missing(runner: Runner, project: Project, names: Iterable[str]) -> list[str]:
    """Return those of the services that are not healthy."""
    well = {each.name for each in observation.services(runner, project) if each.is_well}
    return [name for name in names if name not in well]


def _failure_of(
    runner: Runner,
    names: tuple[str, ...],
    unhealthy: list[Service],
    started: Result,
    *,
    seconds: int,
    runbook: str,
) -> Failure:
    """Return the failure that names the services at fault, not those that are still starting."""
    failed = [service for service in unhealthy if service.health != "starting"] or unhealthy
    listing = ", ".join(service.name for service in failed) or ", ".join(names)
    states = ", ".join(f"{service.state} {service.health}".rstrip() for service in failed)
    logs = ""
    if failed:
        options = ["--no-color", "--tail", LOG_LINES]
        command = engine.compose(
            "logs", *options, *(service.name for service in failed), may_fail=True
        )
        logs = runner.read(command).out
    error = "\n".join(started.err.strip().splitlines()[-3:])
    return Failure(
        f"{listing} did not become healthy within {seconds} s: {states or error}",
        hints=[f"./scripts/logs.sh {service.name}" for service in failed]
        or ["./scripts/status.sh"],
        runbook=runbook,
        evidence=f"{logs.rstrip()}\n{error}".strip(),
    )


def end(runner: Runner, *filters: str, runbook: str) -> None:
    """Remove the containers that match filters of `docker ps`, until none is left.

    Raises:
        Failure: with the engine's error, if a container still exists after a minute.
    """
    left: list[str] = []
    error = ""

    def are_gone() -> bool:
        nonlocal left, error
        left = runner.read(engine.list_containers(list(filters))).out.split()
        if left:
            # The engine refuses if the container is already ending; the next check then succeeds.
            error = runner.run(engine.remove_containers(left)).err
        return not left

    if not wait_until(runner, are_gone, END_SECONDS):
        raise Failure(
            f"containers cannot be removed: {' '.join(left)}",
            hints=[f"docker inspect {' '.join(left)}", "docker version"],
            runbook=runbook,
            evidence=error,
        )
