"""The real counter behind the imitated engine: the scripts' query reaches its code in memory."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from stack.commands.command import Command
from stack.parts.watch import MARK
from stack.runner import Result, accepted

from counter import answers
from counter.counts import Counts
from tests.counter.processes import datagram, stub_status
from tests.scripts.recording import RecordingRunner

SOCKET = "/run/counter/answers.sock"
CLIENTS = 5


class Counting:
    """A counter that the test feeds, and whose datagrams it can lose."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lost = 0
        self.restart()
        self.ask("/counts")  # the first report of nginx' number is the base of the losses

    def restart(self) -> None:
        """Forget all counts, as a restart does."""
        self.counts = Counts(self.clock)

    def ask(self, target: str) -> tuple[int, str]:
        status = stub_status(self.counts.received + self.lost)
        code, _, text = answers.answer(self.counts, "POST", target, status)
        return code, text

    def answer(self, command: Command) -> Result:
        """Return the result of the command, as curl in nginx' container gives it."""
        target = re.search(r"http://counter(/[^']*)'", command.argv[-1])
        assert target, command
        code, text = self.ask(target[1])
        return Result(0 if code == 200 else 22, text)

    def add(
        self,
        slot: str,
        status: int = 200,
        times: int = 1,
        *,
        clients: int = CLIENTS,
        seconds: float = 0.01,
        watch: str = "",
    ) -> None:
        """Count requests of several clients, each to a route of its own."""
        for number in range(times):
            client = f"192.0.2.{number % clients}"
            path = f"/{'abcdefghij'[number // clients % 10]}"
            facts = {"client": client, "path": path, "seconds": str(seconds), "watch": watch}
            self.counts.add(datagram(slot, status, **facts))


@dataclass
class Watched(RecordingRunner):
    """A recording runner with a counter, and a front door whose requests reach it."""

    slot: str = "green"
    status: int = 200
    is_counted: bool = True
    counting: Counting = field(init=False)

    def __post_init__(self) -> None:
        self.counting = Counting(self.clock)

    def read(self, command: Command) -> Result:
        text = shlex.join(command.argv)
        if SOCKET in text and self._find(text) is None:
            return accepted(command, self.counting.answer(command))
        return super().read(command)

    def count_own(self, mark: str | None) -> None:
        """Count a request of the scripts themselves."""
        if self.is_counted:
            self.counting.add(self.slot, self.status, watch=mark or "")


__all__ = ["MARK", "SOCKET", "Counting", "Watched"]
