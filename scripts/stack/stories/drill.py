"""The story of `drill.sh`: runs the daily drill of the schedule now."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.config.project import load
from stack.parts import backup_service, last_line
from stack.runner import Runner

# Three passes (check, copy, check) over 100 GB at 15 MB/s, on a slow disk.
DRILL_SECONDS = 6 * 3600
KEPT = "the live database was not touched; a restore refuses damaged files, too"


def run(runner: Runner, *, is_offsite: bool) -> None:
    """Restore the newest backup to a random time in a scratch directory, and compare the copy.

    The backup is from this host or from the repository off the host.

    Raises:
        Failure: with the difference, or because the comparison failed.
    """
    if is_offsite:
        task, runbook = "offsite-drill", "drill-off-the-host-fails"
    else:
        task, runbook = "drill", "backup-failed-or-too-old"
    backup_service.perform(runner, task, DRILL_SECONDS, KEPT, runbook)


COMMAND = "drill"
HELP = "run the daily restore drill now"


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
    load(root)  # refuses an invalid .env
    run(runner, is_offsite=arguments.repo == "offsite")
    runner.say(last_line.text(runner, root))
    return 0
