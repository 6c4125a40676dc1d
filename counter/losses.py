"""Compares nginx' own number of requests with the datagrams that arrived: the rest is lost.

The kernel drops a datagram without a word when the socket's queue is full, and nginx sends none
while the counter restarts.
"""

import re

# The body of stub_status: accepted, handled and begun; then what is still being read or answered.
_REQUESTS = re.compile(r"^ *\d+ \d+ (\d+) *$", re.MULTILINE)
_PENDING = re.compile(r"Reading: (\d+) Writing: (\d+)")


# nginx changes one number after the other, so that the finished requests may go down by one for
# each of its processes. An nginx that has restarted begins at zero.
FLUX = 8


def finished_requests(status: str) -> int | None:
    """Return the requests that nginx has finished, by its stub_status, or None for another text.

    nginx logs each of them once. Every server must send to the counter, also those whose requests
    nobody counts.
    """
    requests, pending = _REQUESTS.search(status), _PENDING.search(status)
    if not requests or not pending:
        return None
    return int(requests[1]) - int(pending[1]) - int(pending[2])


class Losses:
    """The datagrams that were lost since the first report of nginx' number.

    nginx' number is read some milliseconds before the datagrams are counted, and the request that
    reads it may be among them or not. A loss counts when two reports in a row show it. A first
    report under load may add the requests of these milliseconds.
    """

    def __init__(self) -> None:
        self.total = 0
        self.is_known = False
        self._finished = self._base_finished = self._base_received = 0
        self._before = self._missing = 0

    def report(self, finished: int, received: int) -> None:
        """Compare both numbers; a number that went down is that of an nginx that restarted."""
        if not self.is_known or finished < self._finished - FLUX:
            self._before, self._missing = self.total, 0
            self._base_finished, self._base_received = finished, received
        self.is_known, self._finished = True, finished
        missing = (finished - self._base_finished) - (received - self._base_received)
        self.total = max(self.total, self._before + min(missing, self._missing))
        self._missing = missing
