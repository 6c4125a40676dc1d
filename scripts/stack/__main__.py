"""The command line of the scripts: `python3 -m stack COMMAND` runs one story and reports."""

import importlib
import os
import pkgutil
import signal
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

from stack import stories, terminal
from stack.commands.command import Command
from stack.config import project, surroundings
from stack.config.environment import RUNBOOK
from stack.dry_runner import DryRunner
from stack.failure import USAGE, Failure
from stack.parts import last_line
from stack.parts.steps import unexpected
from stack.runner import ANY_ENTRY, RealRunner, Runner

ROOT = Path(__file__).resolve().parents[2]
# The standard output of these commands is their answer, which other programs read.
PIPED = ("check-config", "jobs", "logs", "status")


class Story(Protocol):
    """The interface of a module of stories/; scripts/COMMAND.sh is a thin shell script for it."""

    COMMAND: str
    HELP: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the arguments of the command."""

    def main(self, runner: Runner, arguments: Namespace, root: Path) -> int:
        """Run the command on the checkout and return its exit code."""


def commands() -> dict[str, Story]:
    """Return each command with the module of its story."""
    names = sorted(module.name for module in pkgutil.iter_modules(stories.__path__))
    modules = [importlib.import_module(f"{stories.__name__}.{name}") for name in names]
    return {module.COMMAND: cast(Story, module) for module in modules if hasattr(module, "COMMAND")}


def parser() -> ArgumentParser:
    """Return the parser of every command."""
    main = ArgumentParser(
        prog="scripts", description="Slipway's scripts; each is ./scripts/COMMAND.sh."
    )
    subparsers = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, story in commands().items():
        script = f"scripts/{name}.sh"
        prog = script if (ROOT / script).is_file() else None
        command = subparsers.add_parser(name, prog=prog, help=story.HELP)
        story.add_arguments(command)
        command.add_argument(
            "--verbose", action="store_true", help="print each command as it runs, as in a pipe"
        )
        command.set_defaults(usage_error=command.error)
    return main


def main() -> int:
    """Run one command and return its exit code (`docs/runbook.md#exit-codes`)."""
    arguments, unknown = parser().parse_known_args()
    if unknown:
        arguments.usage_error(f"unknown: {' '.join(unknown)}")
    os.chdir(ROOT)  # so that each printed command works unchanged in the checkout
    for number in (signal.SIGTERM, signal.SIGHUP):
        # `nohup` starts a script with SIGHUP ignored: the end of the login must not undo a deploy.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    # A dry run prints commands and nothing else: it has no use for a terminal's steps.
    is_dry = getattr(arguments, "dry_run", False)
    display = terminal.choose(is_verbose=arguments.verbose)
    runner: Runner = DryRunner(None, _variables) if is_dry else RealRunner(display, _variables)
    _list_overriding(runner, arguments.command)
    try:
        return commands()[arguments.command].main(runner, arguments, ROOT)
    except Failure as failure:
        return _report(failure, runner)
    except OSError as error:
        return _report(_fault_of_the_machine(error), runner)
    except Exception as error:
        return _report(unexpected(error, ANY_ENTRY), runner)
    except KeyboardInterrupt as stopped:
        runner.display.report(f"error: stopped by {str(stopped) or 'Ctrl-C'}")
        for hint in runner.display.log.hints():
            runner.display.report(f"HINT: {hint}")
        runner.display.report(last_line.text(runner, ROOT))
        return 130


def _list_overriding(runner: Runner, command: str) -> None:
    """Print the keys whose values are those of the shell, once, whatever the command does."""
    write = runner.display.report if command in PIPED else runner.say
    with suppress(Failure, OSError):  # the story itself reports an .env that cannot be read
        names = project.load(ROOT, is_lenient=True).overriding
        if names:
            write(f"from the environment, not from .env: {', '.join(names)}")


def _variables(command: Command) -> dict[str, str]:
    """Return the environment of a command; for Compose with the values of `.env`."""
    is_compose = list(command.argv[:2]) == ["docker", "compose"]
    values = project.compose_values(ROOT) if is_compose else {}
    # A variable of the shell overrides `.env`, for Compose and for the scripts (config/project.py).
    return {**values, **surroundings.of_children(os.environ, str(ROOT))}


def _report(failure: Failure, runner: Runner) -> int:
    failure.hints += runner.display.log.hints()
    if failure.evidence:
        runner.display.report(failure.evidence.rstrip())
    runner.display.report(str(failure))
    if failure.code != USAGE:
        runner.display.report(last_line.text(runner, ROOT))
    return failure.code


def _fault_of_the_machine(error: OSError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure(
            f"this user may not open {error.filename}",
            hints=[
                "run this as the user who ran ./scripts/up.sh first: "
                "other users may not read .env and secrets/"
            ],
            runbook=RUNBOOK,
        )
    where = f": {error.filename}" if error.filename else ""
    return Failure(
        f"{error.strerror or error}{where}",
        hints=[
            "df -h shows full disks; STATE_DIR and SECRETS_DIR in .env say where the scripts write"
        ],
        runbook="disk-full",
    )


def _stop(number: int, _: object) -> None:
    """Make a dropped connection or `kill` end a story like Ctrl-C: the story undoes its steps."""
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
