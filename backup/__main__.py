"""The command line of the backup service: `python3 -m backup run`, and what the scripts ask it for."""

import argparse
import json
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

from backup import (
    drill,
    health,
    ledger,
    observation,
    offsite,
    pgbackrest,
    postgres,
    records,
    server,
    settings,
    shipping,
    tasks,
)
from backup.commands import Failed
from backup.observation import Snapshot
from backup.settings import Settings

WATCH_SECONDS = 10.0
# By hand: for the schedule's task in hand, a full backup of 100 GB at most; partner: scripts/stack/stories/backup.py.
WAIT_SECONDS = 7200.0
RETRY_SECONDS = 2.0
# archive_timeout (postgres/postgresql.conf) and one watch: with the next watch and the push it stays below a minute.
ASLEEP_SECONDS = 40.0
SCHEDULE_SECONDS = 5.0


class Service:
    """Loops and a server: the watch sees and never waits for a task, the schedule runs tasks one at a time.

    Where there is a repository off the host, a third loop ships the WAL to it.
    """

    def __init__(self, given: Settings) -> None:
        self.settings = given
        self.seen = Snapshot()
        self.ending = threading.Event()
        self.loops: list[threading.Thread] = []
        self.is_known = self.is_written = False
        self.woken = 0.0  # in seconds since 1970

    def watch(self) -> float:
        """Write the ledger and look at everything; return the seconds until the next time."""
        was_written = self.is_written
        try:
            ledger.write()
            self.is_written = True
        except Failed as failed:
            self.is_written = False
            if was_written:
                tasks.log(str(failed), action="backup_ledger_failed", level="WARNING")
        self.seen = observation.observe()
        self._wake(time.time())
        return WATCH_SECONDS if self.is_written else RETRY_SECONDS

    def _wake(self, now: float) -> None:
        """Have Postgres end its segment where nothing was archived for too long although rows were written.

        (!) After a start its checkpointer may sleep through `archive_timeout` for as long as `checkpoint_timeout`, five
        minutes: since version 15 it begins before the recovery is over, and the timeout is not for a recovery. To read
        its configuration again wakes it (CheckpointerMain in Postgres' source; seen with 17).
        """
        is_asleep = (
            self.is_written
            and not self.seen.archiver.waiting
            and self.seen.lag_seconds(now) > ASLEEP_SECONDS
        )
        if is_asleep and now - self.woken > ASLEEP_SECONDS:  # it may have been started anew since
            self.woken = now
            postgres.ask("select pg_reload_conf()")
            tasks.log(
                "nothing was archived for too long: Postgres was woken",
                action="backup_archiving_woken",
            )

    def schedule(self) -> float:
        """Make the archive known, then run what is due; return the seconds until the next time."""
        if not self.is_known:
            pgbackrest.create_stanza()
            self.is_known = True
            tasks.log("the archive takes segments", action="backup_started")
        drill.reap()
        for task in tasks.TASKS:
            if not self.ending.is_set() and task.is_due(self.settings, time.time()):
                tasks.perform(task, self.settings)
        return SCHEDULE_SECONDS

    def ship(self) -> float:
        """Ship WAL off the host until the service ends; return the seconds until the next try."""
        shipping.Shipper(self.ending).run()
        return RETRY_SECONDS

    def repeat(self, step: Callable[[], float]) -> None:
        """Do a step again and again, whatever becomes of it: a disk that is full must not end the schedule."""
        while not self.ending.is_set():
            try:
                pause = step()
            except Exception as error:
                pause = RETRY_SECONDS
                text = (
                    str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
                )
                tasks.log(f"{step.__name__}: {text}", action="backup_waits", level="WARNING")
            self.ending.wait(pause)

    def newest(self) -> Snapshot:
        """Return what was seen last; nothing where a loop has ended."""
        return self.seen if all(loop.is_alive() for loop in self.loops) else Snapshot()

    def run(self) -> None:
        """Run until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        http = server.serve(self.settings, self.newest)
        steps = [self.watch, self.schedule, *([self.ship] if self.settings.offsite else [])]
        self.loops = [
            threading.Thread(target=self.repeat, args=(step,), daemon=True) for step in steps
        ]
        for loop in [*self.loops, threading.Thread(target=http.serve_forever, daemon=True)]:
            loop.start()
        self.ending.wait()
        tasks.log("stopped", action="backup_stopped")


def _status() -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{health.PORT}/status", timeout=10) as answer:
        sys.stdout.write(answer.read().decode() + "\n")
    return 0


def _prepared() -> Settings:
    """Return the settings, with pgBackRest configured for the repository off the host, if there is one."""
    given = settings.load()
    if given.offsite:
        offsite.configure(given.offsite)
    return given


def _perform(task: tasks.Task) -> int:
    given = _prepared()
    if task in tasks.OFF_THE_HOST:
        offsite.require()
    if records.is_running():
        tasks.log(
            "another task is running, and this one waits for its end", action="backup_progress"
        )
    record = tasks.perform(task, given, wait_seconds=WAIT_SECONDS)
    return 0 if record.is_well else 1


def main() -> int:
    """Run one command; a failure is one JSON object with `error` and `hints` on standard error."""
    parser = argparse.ArgumentParser(prog="python3 -m backup")
    parser.add_argument(
        "command", choices=["run", "status", "may-begin", *(task.name for task in tasks.TASKS)]
    )
    command = parser.parse_args().command
    try:
        if command == "run":
            Service(_prepared()).run()
            return 0
        if command == "may-begin":
            if _prepared().offsite:
                shipping.refuse_lost_database()
            return 0
        if command == "status":
            return _status()
        return _perform(next(task for task in tasks.TASKS if task.name == command))
    except Failed as failed:
        sys.stderr.write(json.dumps({"error": failed.observation, "hints": failed.hints}) + "\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
