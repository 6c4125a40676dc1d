"""The stories of `backup.sh` and `drill.sh`: run a task of the schedule now, with its progress."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack.config.project import load
from stack.parts import backup_service, last_line
from stack.runner import Runner

RUNBOOK = "backup-failed-or-too-old"
# 100 GB at 15 MB/s on a slow disk: once for a full backup. A drill reads them three times, as a
# restore does.
BACKUP_SECONDS = 2 * 3600
DRILL_SECONDS = 3 * BACKUP_SECONDS
BACKUP_KEPT = "the older backups are kept"
DRILL_KEPT = "the live database was not touched; a restore refuses what a drill finds damaged"


def run(runner: Runner, *, is_full: bool) -> None:
    """Take a backup; an incremental one becomes a full one if there is none yet.

    Raises:
        Failure: with pgBackRest's error.
    """
    task = "full" if is_full else "incremental"
    _perform(runner, task, BACKUP_SECONDS, BACKUP_KEPT, RUNBOOK)


def drill(runner: Runner, *, is_offsite: bool = False) -> None:
    """Restore the newest backup to a random time in a scratch directory, and compare it.

    The backup is one of this host, or one off the host.

    Raises:
        Failure: with the difference, or because the two cannot be compared.
    """
    if is_offsite:
        task, runbook = "offsite-drill", "drill-off-the-host-fails"
    else:
        task, runbook = "drill", RUNBOOK
    _perform(runner, task, DRILL_SECONDS, DRILL_KEPT, runbook)


def _perform(runner: Runner, task: str, timeout: float, kept: str, runbook: str) -> None:
    command = backup_service.argv(task)
    result = runner.follow(command, timeout=timeout, form=backup_service.format_line)
    if runner.is_dry:
        return
    hints = [kept, "./scripts/status.sh", "./scripts/logs.sh backup"]
    backup_service.read_result(result, hints=hints, runbook=runbook)


COMMAND = "backup"
HELP = "take a backup of the database now"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `backup.sh` takes."""
    parser.add_argument(
        "--full",
        action="store_true",
        help="of everything, not only of what changed since the last backup",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `backup.sh`."""
    load(root)  # refuses a broken .env
    run(runner, is_full=arguments.full)
    runner.say(last_line.text(runner, root))
    return 0
