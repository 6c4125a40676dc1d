"""Compares a new release with the former release, by nginx's log of both."""

import json
from dataclasses import dataclass

# Chosen: with fewer requests an error share proves nothing, and a percentile only shows that the
# first requests were slow.
FEWEST_REQUESTS = 20
FEWEST_FOR_LATENCY = 100
# Chosen: when a shared host stalls for a moment, one part of the watch is slow; a slow release is
# slow in every part. A shorter watch could lie within one such stall.
PARTS = 3
SHORTEST_SECONDS_FOR_LATENCY = 5.0
# Chosen: 5 percentage points more errors, or three times the latency and at least 0.5 s more.
MORE_ERRORS = 0.05
SLOWER_TIMES = 3.0
SLOWER_SECONDS = 0.5


@dataclass(frozen=True)
class Traffic:
    """The requests to a slot in a period: their number, the share of 5xx, and the latency.

    `lowest_p95_seconds` is the lowest p95 of PARTS consecutive parts of these requests.
    """

    requests: int
    error_share: float
    p95_seconds: float
    lowest_p95_seconds: float

    def __str__(self) -> str:
        latency = f"p95 {self.p95_seconds * 1000:.0f} ms"
        return f"{self.requests} requests, {self.error_share:.1%} errors, {latency}"


NO_TRAFFIC = Traffic(0, 0.0, 0.0, 0.0)


def p95(seconds: list[float]) -> float:
    """Return the 95th percentile of one or more durations in seconds."""
    return sorted(seconds)[int(len(seconds) * 0.95)]


def traffic_of(log: str, slot: str, own: frozenset[str] = frozenset()) -> Traffic:
    """Return the traffic of a slot.

    An error without a slot counts too if nginx asked a slot: the slot did not answer. Errors that
    nginx gives by itself do not count, because a client can cause them (501, 505).

    `own` contains the ids of the watch's own requests, which do not count.
    """
    seconds, errors = [], 0
    for line in log.splitlines():
        try:
            entry = json.loads(line)
            status, answering = int(entry["status"]), entry["slot"]
            duration, is_own = float(entry["seconds"]), entry.get("request_id") in own
            is_unanswered = not answering and status >= 500 and bool(entry.get("upstream_status"))
        except (ValueError, KeyError, TypeError):
            continue  # a line of nginx's error log
        if is_own:
            continue
        if answering == slot or is_unanswered:
            seconds.append(duration)
            errors += status >= 500
    if not seconds:
        return NO_TRAFFIC
    count = len(seconds)
    parts = [seconds[count * n // PARTS : count * (n + 1) // PARTS] for n in range(PARTS)]
    lowest = min(p95(part) for part in parts if part)
    return Traffic(count, errors / count, p95(seconds), lowest)


def shows(log: str, own: frozenset[str]) -> bool:
    """Whether the log shows a request with one of these ids."""
    return any(f'"request_id":"{identifier}"' in log for identifier in own)


def judge(before: Traffic, now: Traffic, *, by_latency: bool = True) -> str:
    """Return the reason why the new release is worse than the former, or an empty text."""
    if now.requests < FEWEST_REQUESTS:
        return ""
    if now.error_share > before.error_share + MORE_ERRORS:
        share = f"{now.error_share:.0%} of {now.requests} requests failed"
        return f"{share}, {before.error_share:.0%} before"
    limit = max(before.p95_seconds * SLOWER_TIMES, before.p95_seconds + SLOWER_SECONDS)
    is_enough = min(before.requests, now.requests) >= FEWEST_FOR_LATENCY
    if by_latency and is_enough and now.lowest_p95_seconds > limit:
        lowest, former = now.lowest_p95_seconds * 1000, before.p95_seconds * 1000
        return f"p95 is {lowest:.0f} ms or more in each third of the watch, {former:.0f} ms before"
    return ""
