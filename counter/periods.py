"""A period in which the scripts compare a slot: one vote for each client and route.

Only while a period is open, the counter tells clients apart. It keeps no address: the keys are
hashes with a random key of this process, and they are gone when the period ends.
"""

import socket
from collections.abc import Hashable
from dataclasses import dataclass, field

from counter.datagrams import UNNAMED, Request, route
from counter.tallies import Tally

# Chosen: more than a small host has clients and routes in the seconds of a watch; half a MB.
MOST_PAIRS = 2048
# One client that asks for many paths fills no table and outvotes no other.
ROUTES_OF_A_CLIENT = 16
# Whether there are three is all that a verdict asks.
# Partner: FEWEST_ADDRESSES in scripts/stack/rules/verdict.py
ADDRESSES = 3
_OTHERS = -1  # the vote of all pairs beyond the limits; no hash is -1 in CPython


@dataclass
class Votes:
    """The answers of a slot in a period, by pairs of client and route.

    Attributes:
        pairs: the answers and the errors of each pair.
        routes: the number of pairs of each client.
        addresses: at most ADDRESSES clients that got an answer; `failing` of them got an error.
    """

    tally: Tally = field(default_factory=Tally)
    pairs: dict[int, list[int]] = field(default_factory=dict)
    routes: dict[int, int] = field(default_factory=dict)
    addresses: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)

    def add(self, request: Request) -> None:
        """Count an answer."""
        self.tally.add(request)
        client = hash(("client", network(request.client)))
        counts = self.pairs.setdefault(self._pair(client, request), [0, 0])
        counts[0] += 1
        counts[1] += request.is_error
        _remember(self.addresses, client)
        if request.is_error:
            _remember(self.failing, client)

    def _pair(self, client: int, request: Request) -> int:
        pair = hash(("pair", client, route(request.method, request.path)))
        if pair in self.pairs:
            return pair
        number = self.routes.get(client, 0)
        if number >= ROUTES_OF_A_CLIENT or len(self.pairs) >= MOST_PAIRS:
            return _OTHERS
        self.routes[client] = number + 1
        return pair

    @property
    def failing_pairs(self) -> int:
        """The pairs that got an error: an error counts once per client and route."""
        return sum(1 for _, errors in self.pairs.values() if errors)

    @property
    def error_share(self) -> float:
        """The mean of the pairs' shares of errors: a client that repeats a request adds none."""
        shares = [errors / answers for answers, errors in self.pairs.values()]
        return sum(shares) / len(shares) if shares else 0.0


def _remember(addresses: set[int], client: int) -> None:
    if len(addresses) < ADDRESSES:
        addresses.add(client)


def network(address: str) -> Hashable:
    """Return what stands for one client: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return address
    mapped = b"\0" * 10 + b"\xff\xff"
    return socket.inet_ntoa(packed[12:]) if packed.startswith(mapped) else packed[:8]


@dataclass
class Period:
    """A period of one slot.

    Attributes:
        ends_at: when the counter drops it, in monotonic seconds.
        lost_before: the datagrams that had been lost when it began.
        own: the scripts' own requests in it, which have no vote.
        received: the requests through the front door, of which nginx answered some by itself.
    """

    slot: str
    ends_at: float
    lost_before: int
    own: int = 0
    received: int = 0
    votes: Votes = field(default_factory=Votes)

    def add(self, request: Request) -> None:
        """Count a request if it is for or against this slot.

        The scripts watch the live slot: it owes the answers that no slot has given.
        """
        self.received += 1
        if request.slot == self.slot or (request.slot == UNNAMED and request.is_of_slot):
            self.votes.add(request)
