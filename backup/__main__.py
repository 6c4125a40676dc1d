"""The command line of the backup service: `python3 -m backup run`, and what the scripts ask it for."""

import argparse
import json
import signal
import sys
import threading
import time
import urllib.request

from backup import drill, health, ledger, observation, pgbackrest, server, settings, tasks
from backup.commands import Failed
from backup.observation import Snapshot
from backup.settings import Settings

WATCH_SECONDS = 10.0
RETRY_SECONDS = 2.0
SCHEDULE_SECONDS = 5.0


class Service:
    """Two loops and a server: the watch sees and never waits for a task, the schedule runs tasks one at a time."""

    def __init__(self, given: Settings) -> None:
        self.settings = given
        self.seen = Snapshot()
        self.ending = threading.Event()

    def watch(self) -> None:
        """Write the ledger and look at everything, every ten seconds."""
        was_well = True
        while not self.ending.is_set():
            try:
                ledger.write()
            except Failed as failed:
                if was_well:
                    tasks.log(str(failed), action="backup_ledger_failed", level="WARNING")
                was_well = False
            else:
                was_well = True
            self.seen = observation.observe()
            self.ending.wait(WATCH_SECONDS if was_well else RETRY_SECONDS)

    def schedule(self) -> None:
        """Make the archive known, then run what is due."""
        is_known = False
        while not self.ending.is_set():
            try:
                if not is_known:
                    pgbackrest.create_stanza()
                    is_known = True
                    tasks.log("the archive takes segments", action="backup_started")
                drill.reap()
                for task in tasks.TASKS:
                    if not self.ending.is_set() and task.is_due(self.settings, time.time()):
                        tasks.perform(task, self.settings)
            except Failed as failed:
                tasks.log(str(failed), action="backup_waits", level="WARNING")
            self.ending.wait(SCHEDULE_SECONDS if is_known else 1)

    def run(self) -> None:
        """Run until a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ending.set())
        http = server.serve(self.settings, lambda: self.seen)
        loops = [threading.Thread(target=run, daemon=True) for run in (http.serve_forever, self.watch, self.schedule)]
        for loop in loops:
            loop.start()
        self.ending.wait()
        tasks.log("stopped", action="backup_stopped")


def _status() -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{health.PORT}/status", timeout=10) as answer:
        sys.stdout.write(answer.read().decode() + "\n")
    return 0


def _perform(task: tasks.Task) -> int:
    record = tasks.perform(task, settings.load())
    return 0 if record.is_well else 1


def main() -> int:
    """Run one command; a failure is one JSON object with `error` and `hints` on standard error."""
    parser = argparse.ArgumentParser(prog="python3 -m backup")
    parser.add_argument("command", choices=["run", "status", *(task.name for task in tasks.TASKS)])
    command = parser.parse_args().command
    try:
        if command == "run":
            Service(settings.load()).run()
            return 0
        if command == "status":
            return _status()
        return _perform(next(task for task in tasks.TASKS if task.name == command))
    except Failed as failed:
        sys.stderr.write(json.dumps({"error": failed.observation, "hints": failed.hints}) + "\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
