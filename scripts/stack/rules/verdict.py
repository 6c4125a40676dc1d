"""Judges a new release by what nginx logged of it and of the release before."""

import json
from dataclasses import dataclass

# Chosen: a share of fewer requests proves nothing, and a percentile only shows that the first
# ones were slow.
FEWEST_REQUESTS = 20
FEWEST_FOR_LATENCY = 100
# Chosen: 5 percentage points more errors, or three times the latency and at least 0.5 s more.
MORE_ERRORS = 0.05
SLOWER_TIMES = 3.0
SLOWER_SECONDS = 0.5


@dataclass(frozen=True)
class Traffic:
    """The requests to one slot in a span: their number, the share of 5xx, and the latency."""

    requests: int
    error_share: float
    p95_seconds: float

    def __str__(self) -> str:
        latency = f"p95 {self.p95_seconds * 1000:.0f} ms"
        return f"{self.requests} requests, {self.error_share:.1%} errors, {latency}"


NO_TRAFFIC = Traffic(0, 0.0, 0.0)


def traffic_of(log: str, slot: str, own: frozenset[str] = frozenset()) -> Traffic:
    """Return the traffic of a slot; an error without a slot came from nginx, and counts too.

    `own` has the ids of the requests that the watch itself sent: they are no traffic.
    """
    seconds, errors = [], 0
    for line in log.splitlines():
        try:
            entry = json.loads(line)
            status, answering = int(entry["status"]), entry["slot"]
            duration, is_own = float(entry["seconds"]), entry.get("request_id") in own
        except (ValueError, KeyError, TypeError):
            continue  # a line of nginx's error log
        if is_own:
            continue
        if answering == slot or (not answering and status >= 500):
            seconds.append(duration)
            errors += status >= 500
    if not seconds:
        return NO_TRAFFIC
    return Traffic(len(seconds), errors / len(seconds), sorted(seconds)[int(len(seconds) * 0.95)])


def shows(log: str, own: frozenset[str]) -> bool:
    """Whether the log shows one of the requests with these ids."""
    return any(f'"request_id":"{identifier}"' in log for identifier in own)


def judge(before: Traffic, now: Traffic, *, by_latency: bool = True) -> str:
    """Return why the new release is worse than the former release, or an empty text."""
    if now.requests < FEWEST_REQUESTS:
        return ""
    if now.error_share > before.error_share + MORE_ERRORS:
        share = f"{now.error_share:.0%} of {now.requests} requests failed"
        return f"{share}, {before.error_share:.0%} before"
    limit = max(before.p95_seconds * SLOWER_TIMES, before.p95_seconds + SLOWER_SECONDS)
    is_enough = min(before.requests, now.requests) >= FEWEST_FOR_LATENCY
    if by_latency and is_enough and now.p95_seconds > limit:
        return f"p95 is {now.p95_seconds * 1000:.0f} ms, {before.p95_seconds * 1000:.0f} ms before"
    return ""
