"""The command line of the scripts: `python3 -m stack COMMAND`; parses, runs one story, prints how it ended."""

import argparse
import os
import sys
from pathlib import Path

from stack.config import project
from stack.failure import USAGE, Failure
from stack.runner import DryRunner, RealRunner, Runner
from stack.stories import logs, observation, status, up

ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    main = argparse.ArgumentParser(prog="scripts", description="Slipway's scripts; each is ./scripts/COMMAND.sh.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("up", prog="scripts/up.sh", help="bring the whole stack up on this machine")
    one.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    one.add_argument(
        "--refresh-bases", action="store_true", help="take newer base images; replaces nginx, Postgres and Redis"
    )

    commands.add_parser("status", prog="scripts/status.sh", help="what is live and how it is; exit 1 if not well")

    one = commands.add_parser("logs", prog="scripts/logs.sh", help="logs of services, or of one request")
    one.add_argument("services", nargs="*", metavar="SERVICE", help="for example api-blue; all where none is named")
    one.add_argument(
        "--lines", type=_positive, default=200, metavar="N", help="last lines of each service (default 200)"
    )
    one.add_argument("--request", default="", metavar="ID", help="every line of one request, from nginx to the job")
    for one in commands.choices.values():
        one.set_defaults(usage_error=one.error)
    return main


def _run(arguments: argparse.Namespace, runner: Runner) -> int:
    if arguments.command == "up":
        up.run(runner, ROOT, is_refresh=arguments.refresh_bases)
        return 0
    loaded = project.load(ROOT)
    if arguments.command == "status":
        return 0 if status.run(runner, loaded) else 1
    lines = 100_000 if arguments.request and arguments.lines == 200 else arguments.lines
    logs.run(runner, loaded, arguments.services, lines=lines, request=arguments.request)
    # Not among the logs, which are often piped into something.
    sys.stderr.write(_what_serves(runner) + "\n")
    return 0


def _what_serves(runner: Runner) -> str:
    try:
        return observation.what_serves(runner, project.load(ROOT))
    except (Failure, PermissionError):
        return "live: unknown, because .env cannot be read"


def _report(failure: Failure, runner: Runner) -> int:
    if failure.evidence:
        sys.stderr.write(failure.evidence.rstrip() + "\n")
    sys.stderr.write(f"{failure}\n")
    if failure.code != USAGE:
        sys.stderr.write(_what_serves(runner) + "\n")
    return failure.code


def _parse() -> argparse.Namespace:
    arguments, unknown = parser().parse_known_args()
    if unknown:
        arguments.usage_error(f"unknown: {' '.join(unknown)}")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> int:
    """Run one command and return its exit code (`docs/runbook.md#exit-codes`)."""
    arguments = _parse()
    os.chdir(ROOT)  # so that each printed command works as it stands in the checkout
    runner: Runner = DryRunner() if getattr(arguments, "dry_run", False) else RealRunner()
    try:
        return _run(arguments, runner)
    except Failure as failure:
        return _report(failure, runner)
    except PermissionError as error:
        hints = ["run this as the user who ran ./scripts/up.sh first: .env and secrets/ are closed to others"]
        return _report(Failure(f"this user may not read {error.filename}", hints), runner)
    except KeyboardInterrupt:
        sys.stderr.write(f"error: stopped by hand\n{_what_serves(runner)}\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
