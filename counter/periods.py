"""A period in which the scripts compare a slot: one vote for each client and route.

The counter distinguishes clients only while a period is open. It keeps no address: it keeps hashes
with a random key of this process, and deletes them when the period ends.
"""

import socket
from collections.abc import Hashable
from dataclasses import dataclass, field

from counter.datagrams import UNNAMED, Request, route
from counter.tallies import Tally

# Chosen: more pairs than a small host has in the seconds of a watch. They take half a MB.
MOST_PAIRS = 2048
# With this limit, a client that requests many paths neither fills the table nor outvotes the
# others.
ROUTES_OF_A_CLIENT = 16
# A verdict only needs to know whether there are three.
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
        """The mean of the pairs' error shares, so that repeating a request adds no weight."""
        shares = [errors / answers for answers, errors in self.pairs.values()]
        return sum(shares) / len(shares) if shares else 0.0


def _remember(addresses: set[int], client: int) -> None:
    if len(addresses) < ADDRESSES:
        addresses.add(client)


def network(address: str) -> Hashable:
    """Return the key of one client: an IPv4 address, or the /64 of an IPv6 address."""
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
        ends_at: when the counter drops the period, in monotonic seconds.
        lost_before: the number of datagrams that were lost before the period began.
        own: the number of the scripts' own requests, which have no vote.
        received: the number of clients' requests, including those that nginx answered by itself.
    """

    slot: str
    ends_at: float
    lost_before: int
    own: int = 0
    received: int = 0
    votes: Votes = field(default_factory=Votes)

    def add(self, request: Request) -> None:
        """Count a request if it is for or against this slot.

        The scripts watch the live slot, so that an error without a slot's name counts against it.
        """
        self.received += 1
        if request.slot == self.slot or (request.slot == UNNAMED and request.is_of_slot):
            self.votes.add(request)
