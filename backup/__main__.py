"""The command line of the backup service: `python3 -m backup run`, and the scripts' commands.

A command prints its log, then one answer (backup/answers.py).
"""

import argparse
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

from backup import (
    answers,
    drill,
    health,
    logs,
    offsite,
    pgbackrest,
    policy,
    postgres,
    records,
    server,
    shipping,
    snapshot,
    tasks,
    witness,
)
from backup.failure import Failure
from backup.policy import Policy
from backup.snapshot import ArchiveState, Snapshot

WATCH_SECONDS = 10.0
# A command waits this long for a scheduled task to end: enough for a full backup of 100 GB.
# Partner: BACKUP_SECONDS in scripts/stack/stories/backup.py
WAIT_SECONDS = 7200.0
RETRY_SECONDS = 2.0
# archive_timeout (postgres/postgresql.conf) and one interval of the watch. With the next interval
# and the push, the lag stays below a minute.
ASLEEP_SECONDS = 40.0
SCHEDULE_SECONDS = 5.0


class Service:
    """Runs a loop for the watch, a loop for the schedule, and a server.

    The watch never waits for a task; the schedule runs one task at a time. With a repository off
    the host, a third loop ships the WAL to it.
    """

    def __init__(self, operator_policy: Policy) -> None:
        self.policy = operator_policy
        self.snapshot = Snapshot()
        self.archive = ArchiveState()  # as it was read last; reading it is expensive
        self.ending = threading.Event()
        self.loops: list[threading.Thread] = []
        self.is_registered = self.is_written = False
        self.woken = 0.0  # in seconds since 1970

    def watch(self) -> float:
        """Write the witness row and take a snapshot; return the seconds until the next time."""
        was_written = self.is_written
        try:
            witness.write_row()
            self.is_written = True
        except Failure as failure:
            self.is_written = False
            if was_written:
                logs.write(str(failure), action="backup_ledger_failed", level="WARNING")
        self.snapshot = snapshot.take()
        if "repository" not in self.snapshot.faults:
            self.archive = self.snapshot.archive
        self._wake_archiver(time.time())
        return WATCH_SECONDS if self.is_written else RETRY_SECONDS

    def _wake_archiver(self, now: float) -> None:
        """Make Postgres end its segment if it archived nothing for too long despite new rows.

        (!) After a start, its checkpointer may ignore `archive_timeout` for as long as
        `checkpoint_timeout`, five minutes: since version 15 it starts before recovery has ended,
        and there is no such timeout during recovery. A reload of the configuration wakes it
        (CheckpointerMain in Postgres' source; observed with 17).
        """
        is_asleep = (
            self.is_written
            and not self.snapshot.archiver.waiting
            and self.snapshot.lag_seconds(now) > ASLEEP_SECONDS
        )
        if is_asleep and now - self.woken > ASLEEP_SECONDS:  # Postgres may have restarted since
            self.woken = now
            postgres.ask("select pg_reload_conf()")
            logs.write(
                "nothing was archived for too long: Postgres was woken",
                action="backup_archiving_woken",
            )

    def schedule(self) -> float:
        """Register the database, then run each due task; return the seconds until the next time."""
        if not self.is_registered:
            pgbackrest.create_stanza()
            self.is_registered = True
            logs.write("the database is registered with the archive", action="backup_started")
        drill.reap_children()
        for task in tasks.TASKS:
            if self.ending.is_set():
                break
            if task.is_due(self.policy, self.archive, time.time()):
                # The watch may have read the archive before the newest backup ended.
                if self.archive.needs_backup:
                    self.archive = snapshot.read_archive()
                if task.is_due(self.policy, self.archive, time.time()):
                    tasks.perform(task, self.policy)
        return SCHEDULE_SECONDS

    def ship(self) -> float:
        """Ship WAL off the host until the service ends; return the seconds until the next try."""
        shipping.Shipper(self.ending).run()
        return RETRY_SECONDS

    def repeat(self, step: Callable[[], float]) -> None:
        """Repeat a step until the service ends; no error, such as a full disk, ends the loop."""
        while not self.ending.is_set():
            try:
                pause = step()
            except Exception as error:
                pause = RETRY_SECONDS
                kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
                logs.write(
                    f"{step.__name__}: {kind}{error}", action="backup_waits", level="WARNING"
                )
            self.ending.wait(pause)

    def newest(self) -> Snapshot:
        """Return the newest snapshot; an empty one if a loop has ended."""
        return self.snapshot if all(loop.is_alive() for loop in self.loops) else Snapshot()

    def run(self) -> None:
        """Run until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        http = server.serve(self.policy, self.newest)
        steps = [self.watch, self.schedule, *([self.ship] if self.policy.offsite else [])]
        self.loops = [
            threading.Thread(target=self.repeat, args=(step,), daemon=True) for step in steps
        ]
        for loop in [*self.loops, threading.Thread(target=http.serve_forever, daemon=True)]:
            loop.start()
        self.ending.wait()
        logs.write("stopped", action="backup_stopped")


def _ask_status() -> str:
    """Return the answer of the running service."""
    url = f"http://127.0.0.1:{health.PORT}/status"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())
    except OSError as error:
        raise Failure(f"the service does not answer: {error}") from error


def _load_policy() -> Policy:
    """Return the policy; configure pgBackRest for the repository off the host, if there is one."""
    operator_policy = policy.load()
    if operator_policy.offsite:
        offsite.configure(operator_policy.offsite)
    return operator_policy


def _perform(task: tasks.Task) -> str:
    """Run one task and return the answer.

    Raises:
        Failure: if the task failed, or another task runs for too long.
    """
    operator_policy = _load_policy()
    if task in tasks.OFF_THE_HOST:
        offsite.require()
    if records.is_running():
        logs.write(
            "another task is running, and this one waits for its end", action="backup_progress"
        )
    record = tasks.perform(task, operator_policy, wait_seconds=WAIT_SECONDS)
    if not record.is_well:
        raise Failure(f"{task.name}: {record.text}")
    return answers.format_result({"text": record.text, "seconds": record.seconds, **record.facts})


def _answer(command: str) -> str:
    if command == "may-begin":
        if _load_policy().offsite:
            shipping.refuse_lost_database()
        return answers.format_result({})
    if command == "status":
        return _ask_status()
    return _perform(next(task for task in tasks.TASKS if task.name == command))


def main() -> int:
    """Run the service, or one command that ends with its answer."""
    parser = argparse.ArgumentParser(prog="python3 -m backup")
    parser.add_argument(
        "command", choices=["run", "status", "may-begin", *(task.name for task in tasks.TASKS)]
    )
    command = parser.parse_args().command
    try:
        if command == "run":
            Service(_load_policy()).run()
            return 0
        answer = _answer(command)
    except Failure as failure:
        answers.write(answers.format_error(failure))
        return 1
    answers.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
