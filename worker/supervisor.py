"""Keeps several worker processes in one container: forks them, forwards signals, replaces them."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

logger = logging.getLogger(__name__)

# A process that ended sooner did not begin to work. The next one waits, so that a broken worker
# does not restart without end.
SHORT_LIFE_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
# A sleep continues after a signal, so a pause consists of short sleeps: a stop takes no longer.
SLEEP_SECONDS = 0.1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """The parent of the worker processes. It has no connection and no thread, so that it may fork.

    Each process calls `work` with its number.
    """

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self.count = count
        self.work = work
        self.started: dict[int, float] = {}
        self.numbers: dict[int, int] = {}
        self.short_lives = 0
        self.is_stopping = False

    def run(self) -> None:
        """Keep `count` processes running until a signal comes, then wait until all have ended."""
        for stop in STOP_SIGNALS:
            signal.signal(stop, self._pass_on)
        for number in range(self.count):
            self._start(number)
        while self.numbers:
            pid, status = os.wait()
            if pid in self.numbers:
                self._replace(pid, os.waitstatus_to_exitcode(status))

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self.is_stopping = True
        for pid in self.numbers:
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(pid, number)

    def _start(self, number: int) -> None:
        # Signals are blocked until the child is registered here and has default handlers: none is
        # lost, and none is handled twice.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if not self.is_stopping:
            pid = os.fork()
            if pid == 0:
                self._be_child(number)
            self.numbers[pid], self.started[pid] = number, time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _be_child(self, number: int) -> None:
        code = 1
        try:
            for stop in STOP_SIGNALS:
                signal.signal(stop, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            self.work(number)
            code = 0
        except BaseException:
            logger.exception(
                "worker process failed", extra={"action": "worker_process_failed", "number": number}
            )
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)

    def _replace(self, pid: int, code: int) -> None:
        number, lived = self.numbers.pop(pid), time.monotonic() - self.started.pop(pid)
        if self.is_stopping:
            return
        self.short_lives = self.short_lives + 1 if lived < SHORT_LIFE_SECONDS else 0
        pause = (
            min(FIRST_PAUSE_SECONDS * 2 ** (self.short_lives - 1), LONGEST_PAUSE_SECONDS)
            if self.short_lives
            else 0.0
        )
        logger.warning(
            "worker process ended, another replaces it",
            extra={
                "action": "worker_process_ended",
                "number": number,
                "code": code,
                "pause_s": pause,
            },
        )
        until = time.monotonic() + pause
        while not self.is_stopping and time.monotonic() < until:
            time.sleep(SLEEP_SECONDS)
        self._start(number)
