"""The story of `backup.sh`: take a backup of the database now, and print its progress."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack.config.project import load
from stack.parts import backup_service, last_line
from stack.runner import Runner

RUNBOOK = "backup-failed-or-too-old"
BACKUP_SECONDS = 2 * 3600  # a full backup of 100 GB at 15 MB/s, a slow disk
KEPT = "the older backups are kept"


def run(runner: Runner, *, is_full: bool) -> None:
    """Take a backup; an incremental one becomes a full one if there is none yet.

    Raises:
        Failure: with pgBackRest's error.
    """
    task = "full" if is_full else "incremental"
    backup_service.perform(runner, task, BACKUP_SECONDS, KEPT, RUNBOOK)


COMMAND = "backup"
HELP = "take a backup of the database now"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `backup.sh`."""
    parser.add_argument(
        "--full",
        action="store_true",
        help="back up everything, not only the changes since the last backup",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `backup.sh`."""
    load(root)  # refuses an invalid .env
    run(runner, is_full=arguments.full)
    runner.say(last_line.text(runner, root))
    return 0
