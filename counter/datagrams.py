"""Parses the datagram that nginx sends for a request (log_format in nginx/conf.d/10-log.conf).

A datagram comes from nginx, but a client wrote parts of it: nothing here trusts its contents.
"""

import re
from typing import NamedTuple

# Partner: log_format in nginx/conf.d/10-log.conf
FIELDS = 9
# The path is the last field, because the kernel cuts off the end of a longer datagram. Chosen: a
# route needs far less, and the fields before the path are short.
MOST_BYTES = 2048
BLUE, GREEN = "blue", "green"
# UNNAMED: nginx passed the request on, and no answer named a slot. NGINX: nginx answered by itself.
UNNAMED, NGINX = "unnamed", "nginx"
SLOTS = (BLUE, GREEN, UNNAMED, NGINX)
# A path segment that is long, or has a digit or an escape, is an identifier and not part of a
# route. But segments such as `v1` are.
_IDENTIFIER = re.compile(r"(?<=/)(?!v\d{1,2}(?:/|$))(?:[^/]*[0-9%][^/]*|[^/]{33,})")
SEGMENTS = 6


class Request(NamedTuple):
    """One request that nginx has finished.

    Attributes:
        is_public: whether it came through the front door, and not from inside nginx' container.
        slot: one of SLOTS.
        status: the status that the client got.
        seconds: the time until the slot's answer began; None without an answer. A client that sends
            or reads slowly does not change it.
        client: the client's address.
        watch: the mark of the scripts' own requests; empty for any other request.
    """

    is_public: bool
    slot: str
    status: int
    seconds: float | None
    client: str
    method: str
    path: str
    watch: str

    @property
    def is_error(self) -> bool:
        """Whether the answer has a status of 500 or above."""
        return self.status >= 500

    @property
    def is_of_slot(self) -> bool:
        """Whether it counts for or against a release, because a slot was asked for the answer."""
        return self.slot in {BLUE, GREEN} or (self.slot == UNNAMED and self.is_error)


def parse(datagram: bytes) -> Request | None:
    """Return the request, or None if the datagram has another form."""
    _, separator, message = datagram.decode("ascii", "replace").partition(": ")
    fields = message.split("\t")
    if not separator or len(fields) != FIELDS:
        return None
    origin, header, status, upstream, seconds, client, watch, method, path = fields
    if not status.isdecimal() or len(status) != 3:
        return None
    return Request(
        is_public=origin == "public",
        slot=_slot(header, upstream),
        status=int(status),
        seconds=_last_number(seconds),
        client=client,
        method=method,
        path=path,
        watch=watch,
    )


def _slot(header: str, upstream: str) -> str:
    """Return the slot that answered, by the header of its answer and the upstream's statuses."""
    if not upstream.isdecimal() and not any(map(str.isdecimal, upstream)):
        return NGINX
    return header if header in {BLUE, GREEN} else UNNAMED


def _last_number(text: str) -> float | None:
    """Return the last of nginx' values: a request that was sent twice has two."""
    try:
        return float(text.replace(":", ",").rpartition(",")[2])
    except ValueError:
        return None


def route(method: str, path: str) -> str:
    """Return the method and the path without identifiers: `GET /orders/*`."""
    segments = _IDENTIFIER.sub("*", path).split("/")[: SEGMENTS + 1]
    return f"{method} {'/'.join(segments)}"
