"""Compares nginx' own number of requests with the datagrams that arrived; the difference is lost.
The kernel drops a datagram without an error when the socket's queue is full, and nginx sends none
while the counter restarts.
"""

import re

# stub_status has the accepted connections, the handled connections and the requests; then the
# connections whose request nginx still reads or answers.
_REQUESTS = re.compile(r"^ *\d+ \d+ (\d+) *$", re.MULTILINE)
_PENDING = re.compile(r"Reading: (\d+) Writing: (\d+)")


# nginx changes these numbers one after the other, so that the number of finished requests may go
# down by one for each of its processes. After a restart, nginx begins at zero.
FLUX = 8


def finished_requests(status: str) -> int | None:
    """Return the requests that nginx has finished, by its stub_status, or None for another text.

    nginx logs each finished request once. Every server of its configuration must send to the
    counter, even one whose requests are not counted as traffic.
    """
    requests, pending = _REQUESTS.search(status), _PENDING.search(status)
    if not requests or not pending:
        return None
    return int(requests[1]) - int(pending[1]) - int(pending[2])


class Losses:
    """The datagrams that were lost since the first report of nginx' number.

    The caller reads nginx' number some milliseconds before the counter counts the datagrams, and
    the number may or may not include the caller's own request. So a loss counts only if two reports
    in a row show it. If the first report comes under load, the requests of these milliseconds may
    count as lost.
    """

    def __init__(self) -> None:
        self.total = 0
        self.is_known = False
        self._finished = self._base_finished = self._base_received = 0
        self._before = self._missing = 0

    def report(self, finished: int, received: int) -> None:
        """Compare both numbers; a number of nginx that went down means that nginx restarted."""
        if not self.is_known or finished < self._finished - FLUX:
            self._before, self._missing = self.total, 0
            self._base_finished, self._base_received = finished, received
        self.is_known, self._finished = True, finished
        missing = (finished - self._base_finished) - (received - self._base_received)
        self.total = max(self.total, self._before + min(missing, self._missing))
        self._missing = missing
