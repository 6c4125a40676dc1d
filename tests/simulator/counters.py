"""The real counter in the simulated host: nginx' requests reach its code, and it answers."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from stack.runner import Result

from counter import answers
from counter.counts import Counts
from tests.counter.processes import datagram, stub_status
from tests.simulator.clock import Clock

SOCKET = "/run/counter/answers.sock"
QUERY = re.compile(r"http://counter(/[^']*)'")
REQUESTS_PER_SECOND = 20
MOST_REQUESTS = 40  # of clients, counted between two queries
CLIENTS, ROUTES = 5, 10
NO_COUNTER = Result(7, err="curl: (7) Couldn't connect to server\n")


@lru_cache(maxsize=4096)
def datagram_of(number: int, slot: str, status: int, watch: str) -> bytes:
    """Return the datagram of one of the requests that the clients repeat in turn."""
    client, path = f"192.0.2.{number % CLIENTS}", f"/{'abcdefghij'[number // CLIENTS]}"
    return datagram(slot, status, client=client, path=path, watch=watch)


@dataclass
class Traffic:
    """The requests of one nginx.

    Attributes:
        requests: the number of its finished requests, counted or not.
        shown_at: the moment up to which the traffic of clients is counted.
        counts: the counts of the counter's process.
    """

    clock: Clock
    requests: int = 0
    shown_at: float = 0.0
    counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start the process of the counter, without any counts."""
        self.counts = Counts(self.clock.read)
        self.counts.started = self.clock.moment().timestamp()

    def add(self, slot: str, status: int, *, watch: str = "", is_counted: bool) -> None:
        """Make nginx finish a request; without a counter, its datagram is lost."""
        number, self.requests = self.requests, self.requests + 1
        if is_counted:
            self.counts.add(datagram_of(number % (CLIENTS * ROUTES), slot, status, watch))

    def add_clients(self, slot: str, status: int, *, is_counted: bool) -> None:
        """Count the requests that clients sent since the last query."""
        seconds, self.shown_at = self.clock.now - self.shown_at, self.clock.now
        for _ in range(min(MOST_REQUESTS, int(seconds * REQUESTS_PER_SECOND))):
            self.add(slot, status, is_counted=is_counted)

    def answer(self, text: str) -> Result:
        """Answer the scripts' query with the result of curl in nginx' container."""
        target = QUERY.search(text)
        assert target, text
        code, _, body = answers.answer(self.counts, "POST", target[1], stub_status(self.requests))
        return Result(0 if code == 200 else 22, body)
