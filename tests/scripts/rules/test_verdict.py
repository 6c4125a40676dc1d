"""Tests when a release is worse than the former one, by the counts of both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack.rules import verdict
from stack.rules.verdict import NO_TRAFFIC, Traffic, judge, lowest_p95, p95, shortage

from counter.datagrams import parse
from counter.tallies import BUCKET_SECONDS, Tally
from tests.counter.processes import datagram


def traffic(
    requests: int,
    error_share: float,
    p95_seconds: float,
    *,
    counted: int | None = None,
    addresses: int = 3,
    failing: int = 3,
) -> Traffic:
    """Return a traffic that is equally slow all the time."""
    number = requests if counted is None else counted
    return Traffic(requests, number, error_share, addresses, failing, p95_seconds, p95_seconds)


WELL = traffic(100, 0.0, 0.1, failing=0)


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (WELL, traffic(19, 1.0, 9.0), ""),
        (WELL, traffic(20, 1.0, 0.1), "100% of 20 requests failed, 0% before"),
        (WELL, traffic(100, 0.05, 0.1), ""),
        (WELL, traffic(100, 0.06, 0.1), "6% of 100 requests failed, 0% before"),
        (traffic(100, 0.5, 0.1), traffic(100, 0.5, 0.1), ""),
        (NO_TRAFFIC, traffic(100, 0.06, 0.1), "6% of 100 requests failed, 0% before"),
        (WELL, traffic(100, 0.0, 0.59), ""),
        (
            WELL,
            traffic(100, 0.0, 0.61),
            "p95 is 610 ms or more in each third of the watch, 100 ms before",
        ),
        (traffic(100, 0.0, 1.0), traffic(100, 0.0, 2.9), ""),
        (
            traffic(100, 0.0, 1.0),
            traffic(100, 0.0, 3.1),
            "p95 is 3100 ms or more in each third of the watch, 1000 ms before",
        ),
        (traffic(99, 0.0, 0.1), traffic(100, 0.0, 9.0), ""),
        (WELL, traffic(99, 0.0, 9.0), ""),
    ],
)
def test_a_release_is_worse_by_errors_or_by_latency(
    before: Traffic, now: Traffic, reason: str
) -> None:
    assert judge(before, now) == reason


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        # One client, or two, cannot roll a release back, whatever they do.
        (traffic(1000, 1.0, 9.0, addresses=2, failing=2), ""),
        (traffic(1000, 0.4, 0.1, failing=2), ""),
        # Three visitors who get errors on their few routes are enough to judge a release.
        (traffic(184, 1.0, 0.1, counted=6), "100% of 184 requests failed, 0% before"),
        (traffic(184, 0.5, 0.1, counted=6), ""),
        (traffic(184, 0.0, 9.0, counted=6), ""),
    ],
)
def test_few_clients_or_few_pairs_are_judged_with_care(now: Traffic, reason: str) -> None:
    assert judge(WELL, now) == reason


def test_the_errors_of_one_client_before_the_switch_excuse_no_release() -> None:
    before = traffic(100, 0.9, 0.1, failing=1)
    assert judge(before, traffic(100, 0.5, 0.1)) == "50% of 100 requests failed, 0% before"


some_traffic = st.builds(
    traffic,
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.floats(0, 60),
    counted=st.integers(0, 10_000),
    addresses=st.integers(0, 3),
    failing=st.integers(0, 3),
)


@given(some_traffic)
def test_what_is_as_it_was_is_never_worse(same: Traffic) -> None:
    assert judge(same, same) == ""


@given(some_traffic, some_traffic)
def test_no_answer_is_worse_where_fewer_than_three_clients_failed(
    before: Traffic, now: Traffic
) -> None:
    if now.failing_addresses < verdict.FEWEST_ADDRESSES:
        assert judge(before, now, by_latency=False) == ""


@given(some_traffic)
def test_without_traffic_nothing_is_worse_and_the_shortage_is_named(before: Traffic) -> None:
    assert judge(before, NO_TRAFFIC) == ""
    assert shortage(NO_TRAFFIC) == "too little traffic to judge: 0 requests from 0 addresses"


def test_a_shortage_is_named_by_what_lacks() -> None:
    assert shortage(WELL) == ""
    assert shortage(traffic(9, 0.0, 0.1)) == (
        "too little traffic to judge: 9 requests from 3 addresses"
    )
    assert shortage(traffic(99, 0.0, 0.1, addresses=1)).endswith("99 requests from 1 address")
    assert shortage(traffic(99, 0.3, 0.1, failing=2)).startswith("errors of fewer than 3")


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (WELL, traffic(184, 1.0, 0.1, counted=1, addresses=1, failing=1), "all to 1 address"),
        (WELL, traffic(184, 0.51, 0.1, counted=9, addresses=2, failing=2), "all to 2 addresses"),
        (WELL, traffic(184, 0.5, 0.1, counted=9, addresses=2, failing=2), ""),
        (WELL, traffic(9, 1.0, 0.1), "all to 3 addresses or more"),
        (WELL, traffic(99, 0.06, 0.1, failing=1), "all to 1 address"),
        (WELL, traffic(99, 0.05, 0.1, failing=1), ""),
        (traffic(184, 1.0, 0.1), traffic(184, 1.0, 0.1, addresses=1, failing=1), ""),
        (WELL, traffic(184, 1.0, 0.1), ""),
        (WELL, NO_TRAFFIC, ""),
    ],
)
def test_errors_that_no_rule_judges_are_described(before: Traffic, now: Traffic, text: str) -> None:
    described = verdict.describe_unjudged(before, now)
    assert described.partition(", ")[2] == text
    if text:
        share = f"{now.error_share:.0%} of {now.requests} answers were errors"
        assert described.startswith(share)
        assert judge(before, now) == "", "otherwise it is judged"


def buckets(*seconds: float) -> list[int]:
    """Return the buckets in which the counter counts these latencies."""
    tally = Tally()
    for number in seconds:
        request = parse(datagram(seconds=f"{number:.3f}"))
        assert request
        tally.add(request)
    return tally.buckets


def test_the_counter_and_the_scripts_have_the_same_buckets() -> None:
    assert verdict.BUCKET_SECONDS == BUCKET_SECONDS


def test_the_95th_percentile_leaves_out_the_slowest_twentieth() -> None:
    assert p95(buckets(*[0.1] * 96, *[9] * 4)) <= 0.11
    assert p95(buckets(*[0.1] * 94, *[9] * 6)) > 7
    assert p95(buckets()) == 0
    assert p95(buckets(60)) == BUCKET_SECONDS[-1]


@given(st.lists(st.integers(1, 19_999), min_size=1, max_size=60))
def test_the_percentile_is_right_within_its_bucket(milliseconds: list[int]) -> None:
    seconds = sorted(number / 1000 for number in milliseconds)
    exact = seconds[-(-len(seconds) * 95 // 100) - 1]
    below = max((bound for bound in (0.0, *BUCKET_SECONDS) if bound < exact), default=0.0)
    above = min(bound for bound in BUCKET_SECONDS if bound >= exact)
    assert below <= p95(buckets(*seconds)) <= above


def test_a_third_that_is_quick_is_the_lowest() -> None:
    slow, quick = buckets(*[9] * 50), buckets(*[0.1] * 50)
    steps = [buckets()]
    for part in (slow, quick, slow):
        steps.append([a + b for a, b in zip(steps[-1], part, strict=True)])
    assert lowest_p95(steps) <= 0.11
    assert lowest_p95(steps[:2]) > 7
    assert lowest_p95([buckets()]) == 0
    assert lowest_p95([buckets(), buckets()]) == 0
