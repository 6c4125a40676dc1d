"""The story of `logs.sh`: the logs of services, or everything that happened to one request; it only reads."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import USAGE, Failure
from stack.parts import last_line
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
    argv = engine.compose_argv("--profile", "*", "config", "--services")
    known = sorted(_answered(runner.read(argv)).split())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(
            f"no service is called {', '.join(unknown)}",
            hints=["one of: " + ", ".join(known)],
            code=USAGE,
        )
    if not request:
        runner.say(_answered(runner.read(_logs_argv(names, lines), timeout=LOG_SECONDS)).rstrip())
        return
    found = _of_request(
        _answered(runner.read(_logs_argv(names, lines), timeout=LOG_SECONDS)), request
    )
    if not found:
        raise Failure(
            f"no line of the last {lines} of each service carries the request id {request}",
            hints=[
                "look further back with --lines, or check the X-Request-ID header of the answer"
            ],
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


def _logs_argv(names: list[str], lines: int) -> list[str]:
    return engine.compose_argv("--profile", "*", "logs", "--no-color", "--tail", str(lines), *names)


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


COMMAND = "logs"
HELP = "print the logs of services, or of one request"
LINES, LINES_OF_A_REQUEST = 200, 100_000


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `logs.sh` takes."""
    parser.add_argument(
        "services",
        nargs="*",
        metavar="SERVICE",
        help="for example api-blue; default: every service",
    )
    parser.add_argument(
        "--lines",
        type=command_line.positive,
        metavar="N",
        help=f"last lines of each service (default {LINES})",
    )
    parser.add_argument(
        "--request",
        default="",
        metavar="ID",
        help="every line of one request, from nginx to the job",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `logs.sh`."""
    lines = arguments.lines or (LINES_OF_A_REQUEST if arguments.request else LINES)
    run(runner, load(root), arguments.services, lines=lines, request=arguments.request)
    # To stderr: the logs are often piped into another program.
    sys.stderr.write(last_line.text(runner, root) + "\n")
    return 0
