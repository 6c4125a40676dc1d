"""The story of `logs.sh`: prints the logs of services, or every line of a request; only reads.

A pipe gets the lines as the services wrote them, mostly JSON; a terminal shows columns.
"""

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from stack import command_line, layout
from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project, load
from stack.display import Display
from stack.failure import USAGE, Failure
from stack.parts import last_line, log_lines
from stack.parts.log_lines import LogLine
from stack.runner import Result, Runner

LOG_SECONDS = 60
# In columns; --request accepts the beginning of a request id.
SERVICE_WIDTH = len("worker-green")
LEVEL_WIDTH = 5
REQUEST_WIDTH = 8
WIDE = 80  # chosen: with fewer columns the time has no milliseconds
COLOURS = {
    **dict.fromkeys(("ERROR", "FATAL", "PANIC", "CRIT", "ALERT", "EMERG"), layout.RED),
    "WARN": layout.YELLOW,
    "DEBUG": layout.DIM,
}


def run(runner: Runner, project: Project, names: list[str], *, lines: int, request: str) -> None:
    """Print the last lines of the services, or the lines of a request in order of time.

    `request` may be the beginning of a request id, as the columns show it.
    """
    if request and not re.fullmatch(r"[A-Za-z0-9-]{8,64}", request):
        raise Failure(
            f"'{request}' is not a request id",
            hints=["take it from the X-Request-ID header"],
            code=USAGE,
        )
    _check_names(runner, names)
    is_terminal = runner.display.width > 0
    output = _output(runner.read(_logs(names, lines, has_times=is_terminal)))
    if is_terminal:
        entries = [log_lines.parse(line) for line in output.rstrip("\n").split("\n")]
        shown = [entry for entry in entries if not request or entry.request.startswith(request)]
        print_table(runner.display, shown)
        is_empty = not shown
    else:
        text = "\n".join(_of_request(output, request)) if request else output.rstrip()
        is_empty = not text
        if text or not request:
            runner.say(text)
    if request and is_empty:
        raise Failure(
            f"no line of the last {lines} of each service carries the request id {request}",
            hints=["look further back with --lines, or compare it with the X-Request-ID header"],
            runbook="502-and-504",
        )


def print_table(display: Display, entries: Iterable[LogLine]) -> None:
    """Print a row per line in order of time, cut to the width; a date begins each day."""
    date = ""
    # A stable sort: lines of the same millisecond keep the order in which they were written.
    for entry in sorted(entries, key=lambda entry: entry.time):
        if entry.time[:10] != date:
            date = entry.time[:10]
            display.table_row([(date, layout.DIM)])
        display.table_row(cells_of(entry, display.width))


def cells_of(entry: LogLine, width: int) -> list[tuple[str, str]]:
    """Return the cells of a line, each with its colour; together they have `width` columns."""
    time_width = len("10:00:00.123" if width >= WIDE else "10:00:00")
    colour = COLOURS.get(entry.level, "")
    cells = [
        (layout.fit(entry.time[11:][:time_width], time_width), layout.DIM),
        (layout.fit(layout.printable(entry.service), SERVICE_WIDTH), layout.CYAN),
        (layout.fit(layout.printable(entry.level), LEVEL_WIDTH), colour),
        (layout.printable(entry.request)[:REQUEST_WIDTH].ljust(REQUEST_WIDTH), layout.DIM),
    ]
    left = width - sum(len(text) + 1 for text, _ in cells)
    message = layout.clip(layout.printable(entry.message), left)
    is_severe = colour in {layout.RED, layout.YELLOW}
    spaced = [part for cell in cells for part in (cell, (" ", ""))]
    return [*spaced, (message, colour if is_severe else "")]


def _check_names(runner: Runner, names: list[str]) -> None:
    listing = engine.compose("--profile", "*", "config", "--services", may_fail=True)
    services = sorted(_output(runner.read(listing)).split())
    unknown = [name for name in names if name not in services]
    if unknown:
        raise Failure(
            f"no service is called {', '.join(unknown)}",
            hints=["one of: " + ", ".join(services)],
            code=USAGE,
        )


def _output(result: Result) -> str:
    if result.code != 0:
        raise Failure(
            "the engine returns no logs",
            hints=["docker compose config --quiet", "docker version"],
            runbook="site-down",
            evidence=result.err,
        )
    return result.out


def _logs(names: list[str], lines: int, *, has_times: bool) -> Command:
    options = ["--no-color", *(["--timestamps"] if has_times else []), "--tail", str(lines)]
    return engine.compose(
        "--profile", "*", "logs", *options, *names, timeout_seconds=LOG_SECONDS, may_fail=True
    )


def _of_request(output: str, request: str) -> list[str]:
    """Return the lines of a request from all services, in order of time."""
    lines = []
    for line in output.split("\n"):
        _, bar, text = line.partition("| ")
        if not bar or request not in text:
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            continue  # Postgres and Redis have their own line formats
        if isinstance(entry, dict) and str(entry.get("request_id")).startswith(request):
            lines.append((str(entry.get("ts", "")), line))
    return [line for _, line in sorted(lines)]


COMMAND = "logs"
HELP = "print the logs of services, or of one request"
LINES, LINES_OF_A_REQUEST = 200, 100_000


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `logs.sh`."""
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
    run(
        runner,
        load(root, is_lenient=True),
        arguments.services,
        lines=lines,
        request=arguments.request,
    )
    # To stderr: the logs are often piped into another program.
    runner.display.report(last_line.text(runner, root))
    return 0
