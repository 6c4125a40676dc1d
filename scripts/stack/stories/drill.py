"""The story of `drill.sh`: runs now the drill that the schedule runs every day."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.config.project import load
from stack.parts import backup_service, last_line
from stack.runner import Runner

# 100 GB at 15 MB/s on a slow disk, three times: check, copy, check.
DRILL_SECONDS = 6 * 3600
KEPT = "the live database was not touched; a restore refuses what a drill finds damaged"


def run(runner: Runner, *, is_offsite: bool) -> None:
    """Restore the newest backup to a random time in a scratch directory, and compare it.

    The backup is one of this host, or one off the host.

    Raises:
        Failure: with the difference, or because the two cannot be compared.
    """
    if is_offsite:
        task, runbook = "offsite-drill", "drill-off-the-host-fails"
    else:
        task, runbook = "drill", "backup-failed-or-too-old"
    backup_service.perform(runner, task, DRILL_SECONDS, KEPT, runbook)


COMMAND = "drill"
HELP = "try now what is tried every day"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `drill.sh`."""
    parser.add_argument(
        "what",
        choices=["restore"],
        help="the newest backup, to a random time, into a scratch directory",
    )
    command_line.add_repository(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `drill.sh`."""
    load(root)  # refuses a broken .env
    run(runner, is_offsite=arguments.repo == "offsite")
    runner.say(last_line.text(runner, root))
    return 0
