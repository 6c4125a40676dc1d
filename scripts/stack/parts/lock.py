"""The lock for one command at a time. The kernel releases it when the holder's process ends."""

import fcntl
import getpass
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stack.config.project import Project
from stack.failure import LOCKED, Failure
from stack.parts import database, services
from stack.runner import RUN_MARK, Runner
from stack.waiting import wait_until

# Compose exits within a second or two after the first signal.
ORPHAN_SECONDS = 10
UPGRADE_POSTGRES = "upgrade-postgres"


@dataclass(frozen=True)
class Holder:
    """The command that holds the lock, and its process."""

    command: str
    pid: int

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid},"


def holder(project: Project) -> Holder | None:
    """Return the holder of the lock; None if the file names a holder that was killed.

    Read the kernel's list of locks: a try to take the lock could make another command fail.
    """
    try:
        facts = json.loads((project.state / "lock").read_text(encoding="utf-8"))
        named = Holder(str(facts["command"]), int(facts["pid"]))
        inode = (project.state / "lock").stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for line in locks:
        words = line.split()
        if "FLOCK" in words and str(named.pid) in words and words[-3].endswith(f":{inode}"):
            return named
    return None


@contextmanager
def exclusive(
    runner: Runner, project: Project, command: str, wait_seconds: float = 0
) -> Iterator[None]:
    """Hold the project's lock while the block runs; children do not inherit it.

    Raises:
        Failure: with exit code 3 and the name of the holder, after `wait_seconds`.
    """
    if project.unknown:
        names = ", ".join(project.unknown)
        runner.say(f"    warning: .env has keys that nothing here reads: {names}")
    if runner.is_dry:
        yield
        return
    runner.make_directory(project.state, 0o750)
    # os.open sets close-on-exec: a child that outlives this process must not keep the lock.
    descriptor = os.open(project.state / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        if not wait_until(runner, lambda: _take(descriptor), wait_seconds):
            raise Failure(
                f"another command holds the lock: {_holder(descriptor)}",
                hints=[
                    "wait for it; deploy.sh and rollback.sh can wait by themselves: --wait-lock 600"
                ],
                runbook="two-deploys-at-once",
                code=LOCKED,
            )
        _end_orphans(runner, project, descriptor)
        runner.display.log.open(project.state, command)
        who = os.environ.get("SUDO_USER") or getpass.getuser()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(
            descriptor,
            json.dumps(
                {"command": command, "who": who, "pid": os.getpid(), "since": since}
            ).encode(),
            0,
        )
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # only a killed holder leaves its name
    finally:
        os.close(descriptor)


def upgrade_containers(project: Project) -> list[str]:
    """Return the names of the containers of an upgrade of Postgres: the old server and the copy."""
    return [f"{project.name}-postgres-old", f"{project.name}-postgres-next"]


def end_upgrade(runner: Runner, project: Project) -> None:
    """Remove the containers of an upgrade that still exist."""
    services.end(
        runner,
        *(f"name=^/?{name}$" for name in upgrade_containers(project)),
        runbook=database.UPGRADE,
    )


def _end_orphans(runner: Runner, project: Project, descriptor: int) -> None:
    """End the processes of a killed holder: two commands must not use one container."""
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        mark, command = f"{RUN_MARK}={int(facts['pid'])}".encode(), facts["command"]
    except (ValueError, KeyError, TypeError):
        return  # the last holder exited normally and left no entry
    for number in (signal.SIGTERM, signal.SIGKILL):
        if wait_until(runner, partial(_have_ended, mark, number), ORPHAN_SECONDS):
            break
    if command == UPGRADE_POSTGRES:
        # The engine runs these containers: the signals do not reach them.
        end_upgrade(runner, project)


def _have_ended(mark: bytes, number: int) -> bool:
    """Send the signal to the processes with the mark; return whether there was no such process."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has exited, or belongs to another user
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return not pids


def _take(descriptor: int) -> bool:
    """Take the lock if it is free; return whether this process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    try:
        facts = json.loads(os.pread(descriptor, 4096, 0))
        return (
            f"{facts['command']} by {facts['who']}, process {facts['pid']}, since {facts['since']}"
        )
    except (ValueError, KeyError, TypeError):
        return "its holder has not written its name yet"
