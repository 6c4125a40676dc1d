"""One attempt to restore into a new directory, in four steps: prove, restore, recover, check.

A restore and a drill both make such an attempt.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backup.restore import choice, recovery, verification
from backup.restore.choice import Choice, Wish


def _ignore(_: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Progress:
    """Receives the name of each step as it begins, and details of the step."""

    step: Callable[[str], None] = _ignore
    report: Callable[[str], None] = _ignore


SILENT = Progress()


def prove(wish: Wish, progress: Progress, *, reads_backup: bool = True) -> Choice:
    """Choose a restore, and compare every file that it will read with its checksum.

    Args:
        reads_backup: False if the restore that follows compares the backup's files anyway.
            Off the host, each byte that is read may cost money.

    Raises:
        Failure: when the request cannot be met, or a file is missing or damaged.
    """
    progress.step("look for the backup, and check the WAL")
    chosen = choice.choose(wish, progress.report)
    label = chosen.backup.label
    progress.report(f"{label} and {chosen.checked_segments} segments of WAL are as written")
    if reads_backup:
        progress.step("check the backup")
        for name in verification.list_damaged_copies(chosen.backup):
            progress.report(
                f"(!) one of the two copies of {name} is damaged; the other one is used:"
                " take a new backup"
            )
        verification.verify_backup(chosen.backup)
    return chosen


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove the directory if the block fails or a signal ends it.

    After a kill, the next command removes it (`directories.tidy`).
    """
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def restore(chosen: Choice, folder: Path, progress: Progress, *, spare_percent: float = 0) -> None:
    """Copy the backup into a new directory.

    Raises:
        Failure: when the disk has no room for it, or with pgBackRest's error.
    """
    room = recovery.check_space(chosen, folder.parent, spare_percent=spare_percent)
    progress.report(f"room: {room}")
    progress.step("restore the backup")
    recovery.copy_backup(chosen, folder, progress.report)


@contextmanager
def recover(chosen: Choice, folder: Path, progress: Progress) -> Iterator[None]:
    """Recover to the target; the private server runs within the block.

    Raises:
        Failure: when the target was not reached.
    """
    progress.step(f"recover to {chosen.target}")
    progress.report(recovery.start_server(folder))
    try:
        yield
    finally:
        recovery.stop_server(folder)


def check(progress: Progress) -> None:
    """Check every table and index of the recovered database.

    Raises:
        Failure: with the first lines about what is corrupt.
    """
    progress.step("check every table and index")
    progress.report(recovery.check_tables())
