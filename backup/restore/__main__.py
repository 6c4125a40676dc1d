"""The command line of the restore container: `python3 -m backup.restore COMMAND`.

It prints its progress, then one answer (backup/answers.py).
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backup import answers, archive, offsite, pgbackrest, postgres, records
from backup.failure import Failure
from backup.restore import attempt, choice, directories, recovery, verification
from backup.restore.attempt import Progress
from backup.restore.choice import Choice, Repository, Wish, format_time

# How long to wait for a task of the schedule, usually a backup: a restore must not read backups
# that the task deletes.
TASK_SECONDS = 600.0
Facts = dict[str, object]


def report(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _is_answering() -> bool:
    try:
        postgres.ask("select 1")
    except Failure:
        return False
    return True


@contextmanager
def _database_identity(arguments: argparse.Namespace) -> Iterator[None]:
    """Give pgBackRest a directory that identifies the database if no server runs.

    `archive-get` reads the identity in `pg_control`. Without a server, the database may be damaged,
    so this file comes from a backup, restored without the application's rows.

    Raises:
        Failure: when no backup has it.
    """
    if _is_answering():
        yield
        return
    report("the server does not answer: a backup identifies the database")
    # `directories.tidy` removes this name after a kill.
    prefix = f"{directories.NAME}.restoring-identity-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=arguments.root))
    reason = "there is no backup"
    try:
        for backup in reversed(pgbackrest.list_backups(arguments.repo)):
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
            options = [
                f"--pg1-path={folder}",
                f"--set={backup.label}",
                "--type=none",
                "--db-exclude=slipway",
                verification.NO_RETRY,
            ]
            result = pgbackrest.call("restore", *options, repository=arguments.repo)
            if result.code == 0:
                os.environ["PGBACKREST_PG1_PATH"] = str(folder)
                yield
                return
            reason = result.reason
        raise Failure(f"no backup identifies its database: {reason}")
    finally:
        os.environ.pop("PGBACKREST_PG1_PATH", None)
        shutil.rmtree(folder, ignore_errors=True)


def _list(arguments: argparse.Namespace) -> Facts:
    with _database_identity(arguments):
        return _print_repository(Repository(arguments.repo), arguments)


def _print_repository(repository: Repository, arguments: argparse.Namespace) -> Facts:
    report(f"repository {arguments.repo}")
    report(f"  {'backup':<36} {'kind':<5} {'ended':<21} {'database':>10} {'stored':>10}")
    for backup in repository.backups:
        state = "  damaged" if backup.has_error else ""
        ended = format_time(backup.stopped)
        sizes = f"{backup.database_bytes / 1e6:>7.0f} MB {backup.repository_bytes / 1e6:>7.1f} MB"
        report(f"  {backup.label:<36} {backup.kind:<5} {ended:<21} {sizes}{state}")
    ranges = []
    for span in repository.list_ranges():
        since = format_time(span.since)
        until = format_time(choice.subtract_microsecond(span.until))
        ranges.append([since, until])
        report(f"  can be restored: {since} to {until}")
        if span.missing:
            report(f"  gap: the segment {span.missing} is missing from the archive")
    if not ranges:
        report("  nothing can be restored yet: no transaction is archived since the first backup")
    return {"ranges": ranges}


def _make(arguments: argparse.Namespace) -> Facts:
    """Restore, recover and check in a new directory; do not touch the present database."""
    root = Path(arguments.root)
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def step(name: str) -> None:
        seconds[name] = round(time.monotonic() - started, 1)
        report(f"{name} [{seconds[name]:.1f} s]")

    progress = Progress(step, report)
    with records.hold_lock("restore", wait_seconds=TASK_SECONDS), _database_identity(arguments):
        chosen = _prove(arguments, progress)
        folder = root / f"{directories.NAME}.restoring-{arguments.stamp}"
        with attempt.removed_on_failure(folder):
            attempt.restore(chosen, folder, progress)
            with attempt.recover(chosen, folder, progress):
                recovery.prepare_to_serve()
                attempt.check(progress)
        step("done")
        directories.finish(folder, arguments.stamp)
    return {
        "label": chosen.backup.label,
        "text": chosen.text,
        "target": chosen.target,
        "bytes": chosen.backup.database_bytes,
        "seconds": seconds["done"],
    }


def _check(arguments: argparse.Namespace) -> Facts:
    """Prove that every file of a restore is unchanged, and restore nothing."""
    with records.hold_lock("check", wait_seconds=TASK_SECONDS), _database_identity(arguments):
        chosen = _prove(arguments, Progress(report, report))
    return {"label": chosen.backup.label, "text": chosen.text, "segments": chosen.checked_segments}


def _prove(arguments: argparse.Namespace, progress: Progress) -> Choice:
    """Prove that the requested restore is possible; if it is not, offer an older backup.

    Raises:
        Failure: as `attempt.prove`.
    """
    if arguments.repo == pgbackrest.LOCAL:
        archive.archive_now(report)
    moment = datetime.fromisoformat(arguments.to) if arguments.to else None
    wish = Wish(moment, arguments.set, arguments.repo)
    try:
        return attempt.prove(wish, progress)
    except verification.UnverifiedBackup as unverified:
        raise Failure(unverified.observation, _offer_older(unverified, arguments)) from None


def _offer_older(
    unverified: verification.UnverifiedBackup, arguments: argparse.Namespace
) -> list[str]:
    """Return a hint with the newest older backup whose files are all unchanged."""
    for backup in reversed(Repository(arguments.repo).backups):
        if backup.stopped < unverified.backup.stopped and not backup.has_error:
            try:
                verification.verify_backup(backup)
            except Failure:
                continue
            return [
                f"an older backup is good, and leads to the same time: add --set {backup.label}"
            ]
    return [
        "no older backup of this repository is good",
        "docs/runbook.md#backup-failed-or-too-old",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m backup.restore")
    parser.add_argument(
        "command", choices=["list", "check", "make", "tidy", "swap", "swap-back", "discard"]
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--root", default=str(directories.DATA))
    parser.add_argument(
        "--repo", type=int, choices=[pgbackrest.LOCAL, pgbackrest.OFFSITE], default=pgbackrest.LOCAL
    )
    parser.add_argument("--to", default="")
    parser.add_argument("--set", default="")
    parser.add_argument("--stamp", default=datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    return parser


def _perform(arguments: argparse.Namespace) -> Facts:
    root = Path(arguments.root)
    if arguments.repo == pgbackrest.OFFSITE:
        offsite.configure(offsite.require())
    if arguments.command == "list":
        return _list(arguments)
    if arguments.command == "check":
        return _check(arguments)
    if arguments.command == "make":
        return _make(arguments)
    if arguments.command == "tidy":
        return directories.tidy(root).as_facts()
    if arguments.command == "swap":
        directories.swap(root, arguments.stamp)
    elif arguments.command == "swap-back":
        directories.swap_back(root, arguments.stamp)
    else:
        directories.discard(root, arguments.names)
    return {}


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run one command and write its answer."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # A container's first process ignores a signal that it has no handler for.
        signal.signal(number, _stop)
    try:
        facts = _perform(_parser().parse_args())
    except Failure as failure:
        answers.write(answers.format_error(failure))
        return 1
    except (OSError, ValueError, KeyError) as error:
        unexpected = Failure(f"{type(error).__name__}: {error}")
        answers.write(answers.format_error(unexpected))
        return 1
    answers.write(answers.format_result(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
