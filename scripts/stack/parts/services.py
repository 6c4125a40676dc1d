"""Starts services of the stack until the engine calls each healthy, and ends containers until none is left."""

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner

LOG_LINES = "25"
END_SECONDS = 60


def start(
    runner: Runner, project: Project, *names: str, seconds: int, runbook: str, anew: bool = False
) -> None:
    """Start services, and replace those whose configuration changed; `anew` replaces each in any case.

    Raises:
        Failure: naming those that are not healthy after so many seconds, with their last log lines.
    """
    options = ["--detach", "--no-deps", *(["--force-recreate"] if anew else [])]
    argv = engine.compose_argv("up", *options, "--wait", "--wait-timeout", str(seconds), *names)
    done = runner.run(argv, timeout=seconds + 60, check=False)
    if runner.is_dry:
        return
    # (!) Compose 2.26 may exit with 0 when the time is over (seen: once in 36 times): only the containers tell.
    found = [
        one
        for one in observation.services(runner, project)
        if one.name in names and not one.is_well
    ]
    if done.code == 0 and not found:
        return
    ill = [one for one in found if one.health != "starting"] or found
    who = ", ".join(one.name for one in ill) or ", ".join(names)
    seen = ", ".join(f"{one.state} {one.health}".rstrip() for one in ill)
    logs = ""
    if ill:
        logs = runner.read(
            engine.compose_argv("logs", "--no-color", "--tail", LOG_LINES, *(s.name for s in ill))
        ).out
    said = "\n".join(done.err.strip().splitlines()[-3:])
    raise Failure(
        f"{who} did not become healthy within {seconds} s: {seen or said}",
        hints=[f"./scripts/logs.sh {one.name}" for one in ill] or ["./scripts/status.sh"],
        runbook=runbook,
        evidence=f"{logs.rstrip()}\n{said}".strip(),
    )


def end(runner: Runner, *filters: str, runbook: str) -> None:
    """End and remove the containers that filters of `docker ps` find, and return when there is none.

    Raises:
        Failure: with the engine's words, where one is still there after a minute.
    """
    listing = [
        "docker",
        "ps",
        "--all",
        "--quiet",
        *(word for one in filters for word in ("--filter", one)),
    ]
    deadline = runner.clock() + END_SECONDS
    while left := runner.read(listing).out.split():
        # One that ends by itself meanwhile is refused ("removal is already in progress") and gone soon: not checked.
        done = runner.run(["docker", "rm", "--force", *left], check=False)
        if runner.is_dry:
            return
        if runner.clock() > deadline:
            raise Failure(
                f"containers cannot be removed: {' '.join(left)}",
                hints=[f"docker inspect {' '.join(left)}", "docker version"],
                runbook=runbook,
                evidence=done.err,
            )
        runner.sleep(0.2)
