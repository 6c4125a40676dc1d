"""The story of `logs.sh`: the logs of services, or everything that happened to one request; it only reads."""

import json
import re

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.failure import USAGE, Failure
from stack.runner import Result, Runner

LOG_SECONDS = 60


def run(runner: Runner, project: Project, names: list[str], *, lines: int, request: str) -> None:
    """Print the last lines of the services, or, in order of time, every line that carries the request id."""
    if request and not re.fullmatch(r"[A-Za-z0-9-]{8,64}", request):
        raise Failure(
            f"'{request}' is not a request id",
            hints=["take it from the X-Request-ID header"],
            code=USAGE,
        )
    listing = engine.compose("--profile", "*", "config", "--services")
    known = sorted(_answered(runner.read(listing)).split())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(
            f"no service is called {', '.join(unknown)}",
            hints=["one of: " + ", ".join(known)],
            code=USAGE,
        )
    if not request:
        runner.say(_answered(runner.read(_logs(names, lines))).rstrip())
        return
    found = _of_request(_answered(runner.read(_logs(names, lines))), request)
    if not found:
        raise Failure(
            f"no line of the last {lines} of each service carries the request id {request}",
            hints=[
                "look further back with --lines, or check the X-Request-ID header of the answer"
            ],
            runbook="502-and-504",
        )
    runner.say("\n".join(found))


def _answered(result: Result) -> str:
    if result.code != 0:
        raise Failure(
            "the engine gives no logs",
            hints=["docker compose config --quiet", "docker version"],
            runbook="site-down",
            evidence=result.err,
        )
    return result.out


def _logs(names: list[str], lines: int) -> Command:
    options = ["--no-color", "--tail", str(lines)]
    return engine.compose("--profile", "*", "logs", *options, *names, timeout_seconds=LOG_SECONDS)


def _of_request(output: str, request: str) -> list[str]:
    """Return the lines of one request in order of time, whichever service wrote them."""
    found = []
    for line in output.splitlines():
        _, bar, text = line.partition("| ")
        if not bar or request not in text:
            continue
        try:
            entry = json.loads(text)
        except ValueError:
            continue  # Postgres and Redis write lines of their own form
        if isinstance(entry, dict) and entry.get("request_id") == request:
            found.append((str(entry.get("ts", "")), line))
    return [line for _, line in sorted(found)]
