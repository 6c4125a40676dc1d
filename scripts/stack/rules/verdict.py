"""Compares a new release with the former release, by the counts of both."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# Chosen: with fewer requests an error share proves nothing, and a percentile only shows that the
# first requests were slow.
FEWEST_REQUESTS = 20
FEWEST_FOR_LATENCY = 100
# Chosen: fewer addresses may belong to one person, who must not be able to roll a release back.
# Partner: ADDRESSES in counter/periods.py
FEWEST_ADDRESSES = 3
# Chosen: when a shared host stalls for a moment, one part of the watch is slow; a slow release is
# slow in every part. A shorter watch could lie within one such stall.
PARTS = 3
SHORTEST_SECONDS_FOR_LATENCY = 5.0
# Chosen: 5 percentage points more errors, or three times the latency and at least 0.5 s more.
MORE_ERRORS = 0.05
# Chosen: with few pairs of client and route, a release is worse only if most of them fail. Without
# this rule, three visitors who get only errors would be too little traffic.
MORE_ERRORS_OF_FEW = 0.5
SLOWER_TIMES = 3.0
SLOWER_SECONDS = 0.5
# Partner: BUCKET_SECONDS in counter/tallies.py
BUCKET_SECONDS = (
    *(0.005, 0.007, 0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08, 0.11, 0.16, 0.22),
    *(0.32, 0.45, 0.64, 0.9, 1.3, 1.8, 2.5, 3.6, 5.0, 7.0, 10.0, 14.0, 20.0),
)


@dataclass(frozen=True)
class Traffic:
    """The answers of a slot in a period.

    Attributes:
        requests: the number of answers.
        counted: the answers without an error, plus 1 for each pair of client and route with errors.
        error_share: the mean of the error shares of the pairs of client and route.
        addresses: the number of clients; FEWEST_ADDRESSES stands for as many or more.
        failing_addresses: the number of clients that got an error, with the same limit.
        lowest_p95_seconds: the lowest p95 of PARTS consecutive parts of the answers.
    """

    requests: int
    counted: int
    error_share: float
    addresses: int
    failing_addresses: int
    p95_seconds: float
    lowest_p95_seconds: float

    @property
    def is_enough(self) -> bool:
        """Whether the traffic is enough to judge a release by it."""
        return self.counted >= FEWEST_REQUESTS and self.addresses >= FEWEST_ADDRESSES

    def __str__(self) -> str:
        latency = f"p95 {self.p95_seconds * 1000:.0f} ms"
        return f"{self.requests} requests, {self.error_share:.1%} errors, {latency}"


NO_TRAFFIC = Traffic(0, 0, 0.0, 0, 0, 0.0, 0.0)


def p95(buckets: Sequence[int]) -> float:
    """Return the 95th percentile in seconds; 0 without an answer.

    The counter keeps only the bucket of each latency; the result is interpolated within it.
    """
    rank = 0.95 * sum(buckets)
    if not rank:
        return 0.0
    below, lower = 0, 0.0
    for bound, number in zip(BUCKET_SECONDS, buckets, strict=False):
        if below + number >= rank:
            return lower + (bound - lower) * (rank - below) / number
        below, lower = below + number, bound
    return BUCKET_SECONDS[-1]


def lowest_p95(history: Sequence[Sequence[int]]) -> float:
    """Return the lowest p95 of PARTS parts with about as many answers each.

    `history` contains the buckets of a period at increasing times, the first at its beginning.
    """
    totals = [sum(buckets) for buckets in history]
    marks = [
        next(n for n, total in enumerate(totals) if total * PARTS >= totals[-1] * part)
        for part in range(PARTS + 1)
    ]
    parts = [
        [now - then for now, then in zip(history[end], history[begin], strict=True)]
        for begin, end in itertools.pairwise(marks)
    ]
    return min((p95(part) for part in parts if sum(part)), default=0.0)


def judge(before: Traffic, now: Traffic, *, by_latency: bool = True) -> str:
    """Return the reason why the new release is worse than the former, or an empty text."""
    former_share = before.error_share if _has_many_failing(before) else 0.0
    margin = MORE_ERRORS if now.is_enough else MORE_ERRORS_OF_FEW
    is_judged = now.requests >= FEWEST_REQUESTS and _has_many_failing(now)
    if is_judged and now.error_share > former_share + margin:
        share = f"{now.error_share:.0%} of {now.requests} requests failed"
        return f"{share}, {former_share:.0%} before"
    if not now.is_enough:
        return ""
    limit = max(before.p95_seconds * SLOWER_TIMES, before.p95_seconds + SLOWER_SECONDS)
    is_comparable = min(before.requests, now.requests) >= FEWEST_FOR_LATENCY
    if by_latency and is_comparable and now.lowest_p95_seconds > limit:
        lowest, former = now.lowest_p95_seconds * 1000, before.p95_seconds * 1000
        return f"p95 is {lowest:.0f} ms or more in each third of the watch, {former:.0f} ms before"
    return ""


def _has_many_failing(traffic: Traffic) -> bool:
    return traffic.failing_addresses >= FEWEST_ADDRESSES


def describe_unjudged(before: Traffic, now: Traffic) -> str:
    """Return the errors of a release that no rule judges by them, or an empty text."""
    margin = MORE_ERRORS if now.is_enough else MORE_ERRORS_OF_FEW
    if not shortage(now) or now.error_share <= before.error_share + margin:
        return ""
    clients = _count_of(now.failing_addresses) + " or more" * _has_many_failing(now)
    return f"{now.error_share:.0%} of {now.requests} answers were errors, all to {clients}"


def _count_of(addresses: int) -> str:
    return "1 address" if addresses == 1 else f"{addresses} addresses"


def shortage(now: Traffic) -> str:
    """Return why the traffic cannot judge the release, or an empty text."""
    if not now.is_enough:
        clients = _count_of(now.addresses)
        return f"too little traffic to judge: {now.requests} requests from {clients}"
    if now.error_share > MORE_ERRORS and not _has_many_failing(now):
        return f"errors of fewer than {FEWEST_ADDRESSES} addresses, which prove nothing"
    return ""
