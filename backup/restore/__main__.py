"""The command line of the restore container: `python3 -m backup.restore COMMAND`; progress, then one JSON object."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backup import archive, offsite, pgbackrest, postgres, records
from backup.commands import Failed
from backup.restore import choice, directories, recovery, verification
from backup.restore.choice import Repository, Wish, choose, told

# The schedule's task in hand, a backup as a rule: deleting old backups and reading them must not meet.
TASK_SECONDS = 600.0
Facts = dict[str, object]


def say(text: str) -> None:
    """Tell the person at the terminal; at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _is_answering() -> bool:
    try:
        postgres.ask("select 1")
    except Failed:
        return False
    return True


@contextmanager
def _identity(arguments: argparse.Namespace) -> Iterator[None]:
    """Have a directory that tells pgBackRest which database's archive it asks for, where no server runs.

    `archive-get` reads that in `pg_control`. Where the database is lost it comes from a backup, without the
    application's rows; of a damaged one nothing is believed.
    """
    if _is_answering():
        yield
        return
    say("the server does not answer: what the database is comes from a backup")
    # A name that is tidied up after a command that was killed.
    folder = Path(
        tempfile.mkdtemp(prefix=f"{directories.NAME}.restoring-identity-", dir=arguments.root)
    )
    reason = "there is no backup"
    try:
        for backup in reversed(pgbackrest.backups(arguments.repo)):
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
            words = [
                f"--pg1-path={folder}",
                f"--set={backup.label}",
                "--type=none",
                "--db-exclude=slipway",
            ]
            done = pgbackrest.call(
                "restore", *words, verification.NO_RETRY, repository=arguments.repo
            )
            if done.code == 0:
                os.environ["PGBACKREST_PG1_PATH"] = str(folder)
                yield
                return
            reason = done.reason
        raise Failed(f"no backup tells which database it is of: {reason}")
    finally:
        os.environ.pop("PGBACKREST_PG1_PATH", None)
        shutil.rmtree(folder, ignore_errors=True)


def _list(arguments: argparse.Namespace) -> Facts:
    with _identity(arguments):
        return _tell(Repository(arguments.repo), arguments)


def _tell(held: Repository, arguments: argparse.Namespace) -> Facts:
    say(f"repository {arguments.repo}")
    say(f"  {'backup':<36} {'kind':<5} {'ended':<21} {'database':>10} {'stored':>10}")
    for one in held.backups:
        state = "  damaged" if one.has_error else ""
        sizes = f"{one.database_bytes / 1e6:>7.0f} MB {one.repository_bytes / 1e6:>7.1f} MB"
        say(f"  {one.label:<36} {one.kind:<5} {told(one.stopped):<21} {sizes}{state}")
    ranges = held.ranges()
    for span in ranges:
        say(f"  can be restored: {told(span.since)} to {told(choice.just_before(span.until))}")
        if span.missing:
            say(f"  gap: the segment {span.missing} is missing from the archive")
    if not ranges:
        say("  nothing can be restored yet: no transaction is archived since the first backup")
    return {"ranges": [[told(span.since), told(choice.just_before(span.until))] for span in ranges]}


def _make(arguments: argparse.Namespace) -> Facts:
    """Restore, recover and check in a new directory; the database that serves is not touched."""
    root = Path(arguments.root)
    begun = time.monotonic()
    seconds: dict[str, float] = {}

    def step(name: str) -> None:
        seconds[name] = round(time.monotonic() - begun, 1)
        say(f"{name} [{seconds[name]:.1f} s]")

    with records.running("restore", wait_seconds=TASK_SECONDS), _identity(arguments):
        chosen = _prove(arguments, step)
        say(f"room: {recovery.check_space(chosen, root)}")
        folder = root / f"{directories.NAME}.restoring-{arguments.stamp}"
        try:
            step("restore the backup")
            recovery.restore(chosen, folder, say)
            step(f"recover to {chosen.kind} {chosen.value}".rstrip())
            say(recovery.recover(folder))
            step("check every table and index")
            say(recovery.check(folder))
        except (
            BaseException
        ):  # a signal, too; what it leaves all the same is named and removed by the next command
            shutil.rmtree(folder, ignore_errors=True)
            raise
        step("done")
        directories.finish(folder, arguments.stamp)
    return {
        "label": chosen.backup.label,
        "text": chosen.text,
        "target": f"{chosen.kind} {chosen.value}".rstrip(),
        "bytes": chosen.backup.database_bytes,
        "seconds": seconds["done"],
    }


def _prove(arguments: argparse.Namespace, step: Callable[[str], None]) -> choice.Choice:
    """Choose what to restore, and compare all that recovery will read with its checksums."""
    if arguments.repo == pgbackrest.LOCAL:
        archive.reach_now(say)
    step("look for the backup, and check the WAL")
    moment = datetime.fromisoformat(arguments.to) if arguments.to else None
    chosen = choose(Wish(moment, arguments.set, arguments.repo), say)
    say(
        f"{chosen.backup.label} and {chosen.checked_segments} segments of WAL, all as they were written"
    )
    step("check the backup")
    _check_backup(chosen, arguments)
    return chosen


def _check(arguments: argparse.Namespace) -> Facts:
    """Prove that a restore would find everything as it was written, and make none."""
    with records.running("check", wait_seconds=TASK_SECONDS), _identity(arguments):
        chosen = _prove(arguments, say)
    return {"label": chosen.backup.label, "text": chosen.text, "segments": chosen.checked_segments}


def _check_backup(chosen: choice.Choice, arguments: argparse.Namespace) -> None:
    for name in verification.damaged_copies(chosen.backup):
        say(
            f"(!) one of the two copies of {name} is damaged; the other one is used: take a new backup"
        )
    try:
        verification.backup_files(chosen.backup)
    except Failed as failed:
        raise Failed(failed.observation, _older(chosen, arguments)) from None


def _older(chosen: choice.Choice, arguments: argparse.Namespace) -> list[str]:
    """Return the offer of the newest older backup whose files are as they were written."""
    for one in reversed(Repository(arguments.repo).backups):
        if one.stopped < chosen.backup.stopped and not one.has_error:
            try:
                verification.backup_files(one)
            except Failed:
                continue
            return [f"an older backup is good, and leads to the same time: add --set {one.label}"]
    return [
        "no older backup of this repository is good",
        "docs/runbook.md#backup-failed-or-too-old",
    ]


def _parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python3 -m backup.restore")
    main.add_argument(
        "command", choices=["list", "check", "make", "tidy", "swap", "swap-back", "discard"]
    )
    main.add_argument("names", nargs="*")
    main.add_argument("--root", default=str(directories.DATA))
    main.add_argument(
        "--repo", type=int, choices=[pgbackrest.LOCAL, pgbackrest.OFFSITE], default=pgbackrest.LOCAL
    )
    main.add_argument("--to", default="")
    main.add_argument("--set", default="")
    main.add_argument("--stamp", default=datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    return main


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
    """Run one command; a failure is one JSON object with `error` and `hints` on standard error."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, _stop
        )  # the first process of a container ignores what it has no answer to
    try:
        facts = _perform(_parser().parse_args())
    except Failed as failed:
        sys.stderr.write(json.dumps({"error": failed.observation, "hints": failed.hints}) + "\n")
        return 1
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(
            json.dumps({"error": f"{type(error).__name__}: {error}", "hints": []}) + "\n"
        )
        return 1
    say(json.dumps({"result": facts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
