"""Counts requests by status class and latency; holds no address and no path."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

from counter.datagrams import SLOTS, Request

# The upper bounds of the latency buckets, in seconds. Each bound is about 1.4 times the one before,
# so that a percentile is known to within this factor. The last bound is proxy_read_timeout.
# Partner: proxy_read_timeout in nginx/snippets/proxy.conf
BUCKET_SECONDS = (
    *(0.005, 0.007, 0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08, 0.11, 0.16, 0.22),
    *(0.32, 0.45, 0.64, 0.9, 1.3, 1.8, 2.5, 3.6, 5.0, 7.0, 10.0, 14.0, 20.0),
)
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# The last minute has 6 parts of 10 s, of which the newest is not over: it covers 50 to 60 s.
PART_SECONDS, PARTS = 10, 6


@dataclass
class Tally:
    """The answers of a slot: their number by status class, and their latency.

    Attributes:
        buckets: the number of answers in each bucket of BUCKET_SECONDS, and of slower answers.
        seconds: the sum of all latencies.
    """

    classes: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKET_SECONDS) + 1))
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        """The number of answers."""
        return sum(self.classes)

    @property
    def errors(self) -> int:
        """The number of answers with 5xx."""
        return self.classes[-1]

    def add(self, request: Request) -> None:
        """Count a request."""
        self.classes[min(max(request.status // 100, 1), len(CLASSES)) - 1] += 1
        if request.seconds is not None:
            self.buckets[bisect_left(BUCKET_SECONDS, request.seconds)] += 1
            self.seconds += request.seconds

    def add_all(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        self.classes = [a + b for a, b in zip(self.classes, other.classes, strict=True)]
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


class LastMinute:
    """A tally for each slot of the last minute, in parts that are dropped one by one."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, dict[str, Tally]]] = deque(maxlen=PARTS)

    def add(self, request: Request, now: float) -> None:
        """Count a request; `now` is monotonic, in seconds."""
        number = int(now // PART_SECONDS)
        if not self._parts or self._parts[-1][0] != number:
            self._parts.append((number, {slot: Tally() for slot in SLOTS}))
        self._parts[-1][1][request.slot].add(request)

    def of_slot(self, slot: str, now: float) -> Tally:
        """Return the tally of a slot."""
        oldest = int(now // PART_SECONDS) - PARTS + 1
        total = Tally()
        for number, tallies in self._parts:
            if number >= oldest and tallies[slot].answers:
                total.add_all(tallies[slot])
        return total
