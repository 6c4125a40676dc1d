"""Counts requests in total, in the last minute and in periods; describes the counts for JSON."""

import secrets
import time
from collections.abc import Callable
from typing import Any

from counter import datagrams
from counter.datagrams import SLOTS, Request
from counter.losses import Losses, finished_requests
from counter.periods import Period
from counter.tallies import LastMinute, Tally

# A deploy needs two periods at a time. The oldest is dropped: a killed deploy left it.
MOST_PERIODS = 3
# Chosen: no watch lasts longer than a day.
LONGEST_SECONDS = 86_400.0


class Counts:
    """All counts since this process began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = time.time()
        self.received = self.malformed = self.inside = 0
        self.totals = {slot: Tally() for slot in SLOTS}
        self.last_minute = LastMinute()
        self.losses = Losses()
        self.periods: dict[str, Period] = {}

    def add(self, datagram: bytes) -> None:
        """Count a datagram."""
        self.received += 1
        request = datagrams.parse(datagram)
        if request is None:
            self.malformed += 1
        elif not request.is_public:
            self.inside += 1
        else:
            self.totals[request.slot].add(request)
            self.last_minute.add(request, self.clock())
            self._add_to_periods(request)

    def _add_to_periods(self, request: Request) -> None:
        if not self.periods:
            return
        self.expire()
        if request.watch in self.periods:
            self.periods[request.watch].own += 1
            return
        for period in self.periods.values():
            period.add(request)

    def report(self, status: str) -> bool:
        """Compare nginx' number of requests with the datagrams; return whether the text has it."""
        finished = finished_requests(status)
        if finished is None:
            return False
        self.losses.report(finished, self.received)
        return True

    def begin(self, slot: str, seconds: float) -> str:
        """Begin a period of a slot, which ends after `seconds` at the latest; return its name.

        The name is random, so that a client cannot mark its requests as the scripts' own.
        """
        self.expire()
        while len(self.periods) >= MOST_PERIODS:
            del self.periods[next(iter(self.periods))]
        name = secrets.token_hex(16)
        ends_at = self.clock() + min(seconds, LONGEST_SECONDS)
        self.periods[name] = Period(slot, ends_at, self.losses.total)
        return name

    def end(self, name: str) -> None:
        """End a period and forget its clients."""
        self.periods.pop(name, None)

    def expire(self) -> None:
        """End the periods whose time is over."""
        now = self.clock()
        for name in [name for name, period in self.periods.items() if period.ends_at <= now]:
            del self.periods[name]

    def describe(self) -> dict[str, Any]:
        """Return the counts since the start, and those of the last minute."""
        now = self.clock()
        return {
            "started": self.started,
            "received": self.received,
            "malformed": self.malformed,
            "lost": self.losses.total,
            "slots": {slot: _describe_tally(tally) for slot, tally in self.totals.items()},
            "last_minute": {
                slot: _describe_tally(self.last_minute.of_slot(slot, now)) for slot in SLOTS
            },
        }

    def describe_period(self, name: str) -> dict[str, Any] | None:
        """Return the counts of a period, or None: it has ended, or the counter has restarted."""
        self.expire()
        period = self.periods.get(name)
        if period is None:
            return None
        votes = period.votes
        return {
            "name": name,
            "slot": period.slot,
            "own": period.own,
            "received": period.received,
            "lost": self.losses.total - period.lost_before,
            "pairs": len(votes.pairs),
            "failing_pairs": votes.failing_pairs,
            "error_share": votes.error_share,
            "addresses": len(votes.addresses),
            "failing_addresses": len(votes.failing),
            **_describe_tally(votes.tally),
        }


def _describe_tally(tally: Tally) -> dict[str, Any]:
    return {"answers": tally.answers, "errors": tally.errors, "buckets": tally.buckets}
