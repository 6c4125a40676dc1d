"""The votes of a period: one for each client and route, in a bounded table."""

import pytest

from counter.counts import MOST_PERIODS, Counts
from counter.datagrams import route
from counter.periods import ADDRESSES, ROUTES_OF_A_CLIENT, network
from tests.counter.processes import datagram


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(clock: Clock) -> Counts:
    return Counts(clock)


def votes(counts: Counts, *datagrams: bytes) -> dict[str, float]:
    """Return the counts of a period of green with these requests."""
    name = counts.begin("green", 60)
    for content in datagrams:
        counts.add(content)
    description = counts.describe_period(name)
    assert description
    return description


def test_a_client_that_repeats_an_error_has_one_vote(counts: Counts) -> None:
    broken = [datagram("green", 500, client="192.0.2.66", path="/broken")] * 200
    visitors = [datagram("green", client=f"192.0.2.{n}") for n in range(9)]
    facts = votes(counts, *broken, *visitors)
    assert (facts["answers"], facts["errors"], facts["failing_pairs"]) == (209, 200, 1)
    assert facts["error_share"] == pytest.approx(0.1)
    assert (facts["addresses"], facts["failing_addresses"]) == (3, 1)


def test_busy_clients_do_not_hide_the_routes_that_fail(counts: Counts) -> None:
    content = [
        datagram("green", 500 if path == "/a" else 200, client=f"192.0.2.{n}", path=path)
        for n in range(3)
        for path in ("/a", *["/b"] * 500)
    ]
    facts = votes(counts, *content)
    assert facts["error_share"] == pytest.approx(0.5)
    assert facts["failing_addresses"] == 3


def test_an_error_now_and_then_counts_by_its_share(counts: Counts) -> None:
    facts = votes(counts, *[datagram("green")] * 99, datagram("green", 500))
    assert facts["error_share"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("content", "is_counted"),
    [
        (datagram("green", 200), True),
        (datagram("green", 500), True),
        (datagram("blue", 500), False),
        (datagram("red", 502), True),  # nginx asked a slot, but no answer names one
        (datagram("red", 404), False),
        (datagram("", 502, upstream="502"), True),
        (datagram("", 501), False),
        (datagram("green", 500, origin="inside"), False),
    ],
)
def test_only_what_the_slot_gave_or_owed_counts(
    counts: Counts, content: bytes, *, is_counted: bool
) -> None:
    assert votes(counts, content)["answers"] == is_counted


def test_a_request_that_no_slot_answered_is_owed_by_the_watched_slot(counts: Counts) -> None:
    owed = datagram("green", 503).replace(b"\tgreen\t", b"\t-\t")
    facts = votes(counts, owed)
    assert (facts["answers"], facts["errors"]) == (1, 1)
    assert counts.totals["unnamed"].errors == 1


def test_the_watch_s_own_requests_have_no_vote(counts: Counts) -> None:
    name = counts.begin("green", 60)
    counts.add(datagram("green", 500, watch=name))
    counts.add(datagram("green", 500, watch="0" * 32))
    facts = counts.describe_period(name)
    assert facts
    assert (facts["own"], facts["answers"]) == (1, 1)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/items", "GET /v1/items"),
        ("/v1/items/17", "GET /v1/items/*"),
        ("/v1/items/1f8b0c1e-0000-4000-8000-123456789abc/tags", "GET /v1/items/*/tags"),
        ("/v1/items/%6a", "GET /v1/items/*"),
        ("/v2/items", "GET /v2/items"),
        ("/" + "a" * 33, "GET /*"),
        ("/a" * 5000, "GET /a/a/a/a/a/a"),
        ("", "GET "),
    ],
)
def test_a_route_has_no_identifiers(path: str, expected: str) -> None:
    assert route("GET", path) == expected


@pytest.mark.parametrize(
    ("first_address", "other_address", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("unix:", "unix:", True),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(
    first_address: str, other_address: str, *, is_same: bool
) -> None:
    assert (network(first_address) == network(other_address)) is is_same


def test_a_client_with_many_paths_has_few_votes(counts: Counts) -> None:
    words = ["".join("abcdefghij"[int(digit)] for digit in str(n)) for n in range(500)]
    facts = votes(counts, *[datagram("green", 500, path=f"/{word}") for word in words])
    assert facts["pairs"] == ROUTES_OF_A_CLIENT + 1
    assert facts["answers"] == 500


def test_it_asks_no_further_than_whether_there_are_three_clients(counts: Counts) -> None:
    facts = votes(counts, *[datagram("green", 500, client=f"192.0.2.{n}") for n in range(50)])
    assert facts["addresses"] == facts["failing_addresses"] == ADDRESSES


def test_a_period_ends_by_itself_and_is_then_unknown(counts: Counts, clock: Clock) -> None:
    name = counts.begin("green", 60)
    clock.now += 59
    assert counts.describe_period(name)
    clock.now += 1
    assert counts.describe_period(name) is None
    assert counts.periods == {}


def test_a_period_that_ends_by_itself_forgets_with_the_next_request(
    counts: Counts, clock: Clock
) -> None:
    counts.begin("green", 60)
    clock.now += 60
    counts.add(datagram("green"))
    assert counts.periods == {}


def test_killed_deploys_leave_few_periods(counts: Counts) -> None:
    names = [counts.begin("green", 60) for _ in range(MOST_PERIODS + 3)]
    assert list(counts.periods) == names[3:]


def test_without_a_period_no_client_is_told_apart(counts: Counts) -> None:
    counts.add(datagram("green", 500))
    assert counts.periods == {}
    assert "192.0.2.1" not in repr(vars(counts))


def test_the_last_minute_is_a_minute(counts: Counts, clock: Clock) -> None:
    counts.add(datagram("green", 500))
    clock.now += 49
    assert counts.describe()["last_minute"]["green"]["errors"] == 1
    clock.now += 12
    assert counts.describe()["last_minute"]["green"]["errors"] == 0
    assert counts.describe()["slots"]["green"]["errors"] == 1
