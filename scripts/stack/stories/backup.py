"""The stories of `backup.sh` and `drill.sh`: what the schedule does, now and with its progress; and how things are."""

import json

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner

RUNBOOK = "backup-failed-or-too-old"
# 100 GB at 15 MB/s on a slow disk: once for a full backup, three times for a drill, as for a restore (restore.py).
BACKUP_SECONDS = 2 * 3600
DRILL_SECONDS = 3 * BACKUP_SECONDS
ASK_SECONDS = 180  # pgBackRest gives a silent repository up after 20 s, some times over
SERVICE = ["exec", "--no-TTY", "backup", "python3", "-m", "backup"]


def run(runner: Runner, *, is_full: bool) -> None:
    """Take a backup; an incremental one becomes a full one where there is none yet.

    Raises:
        Failure: with what pgBackRest said.
    """
    _perform(
        runner,
        "full" if is_full else "incremental",
        BACKUP_SECONDS,
        "the backups from before are kept",
    )


def drill(runner: Runner, *, is_offsite: bool = False) -> None:
    """Restore the newest backup to a random time into a scratch directory, and compare it with what serves.

    Of this host's backups, or of those off the host.

    Raises:
        Failure: with what differs, or could not be looked at.
    """
    consolation = (
        "nothing that serves was touched; what a drill finds damaged a restore refuses, too"
    )
    if is_offsite:
        _perform(runner, "offsite-drill", DRILL_SECONDS, consolation, "drill-off-the-host-fails")
    else:
        _perform(runner, "drill", DRILL_SECONDS, consolation)


def _perform(
    runner: Runner, task: str, timeout: float, consolation: str, runbook: str = RUNBOOK
) -> None:
    command = engine.compose(*SERVICE, task, timeout_seconds=timeout)
    done = runner.follow(command, form=message)
    if done.code != 0:
        hints = [consolation, "./scripts/status.sh", "./scripts/logs.sh backup"]
        raise Failure(observed(done.out, done.err), hints=hints, runbook=runbook)


def refuse_new_database(runner: Runner, project: Project) -> None:
    """Refuse to begin an empty database where the repository off the host has backups of one, or cannot be asked.

    Raises:
        Failure: with what the backup service advises: the command that brings the lost one back, or what to correct.
    """
    if runner.is_dry or not project.values.get("OFFSITE_TYPE"):
        return
    if any(
        one.name == "postgres" and one.state == "running"
        for one in observation.services(runner, project)
    ):
        return
    question = engine.one_shot(
        *SERVICE[2:], "may-begin", timeout_seconds=ASK_SECONDS, may_fail=True
    )
    asked = runner.run(question)
    if asked.code != 0:
        hints = advised(asked.err)
        raise Failure(observed(asked.out, asked.err), hints=hints, runbook="restore-to-a-new-host")


def message(line: str) -> str:
    """Return what a line of the service's log says to a person."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def advised(err: str) -> list[str]:
    """Return the hints that came with an error of the backup service, or of the restore container."""
    for line in err.splitlines():
        if line.startswith('{"error"'):
            return list(json.loads(line)["hints"])
    return []


def observed(out: str, err: str) -> str:
    """Return what went wrong, as the backup service told it, or else the last line."""
    for line in reversed([*out.splitlines(), *err.splitlines()]):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and (told.get("error") or told.get("level") == "ERROR"):
            return str(told.get("error") or told["message"])
    return ((out + err).strip().splitlines() or ["the backup service gave no answer"])[-1]


def rows(runner: Runner) -> list[tuple[bool, str, str]]:
    """Return the lines of `status.sh` on backups: whether it is well, a name, a text."""
    asked = runner.read(engine.compose(*SERVICE, "status"))
    try:
        return [(row["is_well"], row["name"], row["text"]) for row in json.loads(asked.out)]
    except (ValueError, KeyError, TypeError):
        return [
            (
                False,
                "last backup",
                f"the backup service does not answer: {observed(asked.out, asked.err)}",
            )
        ]
