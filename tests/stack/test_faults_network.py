"""The network of API, Postgres and Redis is cut or slow: errors are quick, nothing leaks."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from api.configuring.timeouts import PEER_SECONDS, POOL_SECONDS
from tests.conftest import Figure
from tests.stack.faults import (
    ROOM_SECONDS,
    assert_nothing_is_leaked,
    end_sessions,
    heal,
    kinds,
    narrow_network,
    packet_rules,
    probing_load,
    status,
    unexpected,
)
from tests.stack.harness import Stack, wait_until

# Runs alone: each limit is two seconds, and a busy machine alone may take as long.
pytestmark = [pytest.mark.drill, pytest.mark.alone]

HEAL_SECONDS = 10
# On a cut network the first exchange with Postgres fails. On a slow network each exchange may take
# up to PEER_SECONDS and still succeed; a POST has three exchanges: BEGIN, INSERT, COMMIT.
EXCHANGES_OF_A_POST = 3
# Drops answers, not statements: Postgres may run a statement whose result the API never gets.
DROP = "INPUT -p tcp --sport {} -j DROP"
RESET = "OUTPUT -p tcp --dport {} -j REJECT --reject-with tcp-reset"
LOSE = "INPUT -p tcp --sport {} -m statistic --mode random --probability 0.1 -j DROP"
NO_NAMES = "INPUT -p udp -s 127.0.0.11 -j DROP"  # silences the engine's name server


@contextmanager
def without_names(stack: Stack) -> Iterator[None]:
    with packet_rules(stack, NO_NAMES):
        end_sessions(stack)
        yield


# The fault, and whether it cuts off Postgres (None: it only slows the network).
FAULTS: dict[str, tuple[Callable[[Stack], AbstractContextManager[None]], bool | None]] = {
    "answers of both dropped": (
        lambda stack: packet_rules(stack, DROP.format(5432), DROP.format(6379)),
        True,
    ),
    "answers of Redis dropped": (lambda stack: packet_rules(stack, DROP.format(6379)), False),
    "both reset": (lambda stack: packet_rules(stack, RESET.format(5432), RESET.format(6379)), True),
    "a tenth of the answers lost": (
        lambda stack: packet_rules(stack, LOSE.format(5432), LOSE.format(6379)),
        None,
    ),
    "64 kbit/s": (narrow_network, None),
    "no names": (without_names, True),
}
# The tests of every change include a network that is cut off and one without a name server.
NIGHTLY = {
    "answers of Redis dropped",
    "both reset",
    "a tenth of the answers lost",
    "64 kbit/s",
}


@pytest.mark.counts_losses
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.nightly if name in NIGHTLY else ()) for name in FAULTS],
)
def test_errors_are_short_and_nothing_leaks(stack: Stack, name: str, figure: Figure) -> None:
    fault, is_cut = FAULTS[name]
    load = probing_load(stack)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 10, 30, "the load is under way")
        with fault(stack):
            sent = report.sent
            wait_until(
                lambda: report.sent > sent + 75, 60, "the fault lasts for five seconds of load"
            )
            assert status(stack, "/livez")[0] == 200
        healed = heal(stack, load, HEAL_SECONDS)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"{name}: sent {report.sent}, failed {kinds(report)}, "
        f"slowest {report.slowest:.2f} s ({report.slowest_request}), "
        f"slowest failure {report.slowest_failure:.2f} s, stall {report.stall:.2f} s, "
        f"healed {healed:.1f} s after its end, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert unexpected(report) == []
    exchanges = EXCHANGES_OF_A_POST if is_cut is None else 1
    assert report.slowest - report.stall < POOL_SECONDS + exchanges * PEER_SECONDS + ROOM_SECONDS
    # The promise limits the time of errors only, also on a slow network.
    assert report.slowest_failure - report.stall < POOL_SECONDS + PEER_SECONDS + ROOM_SECONDS
    assert healed < HEAL_SECONDS
    if is_cut is not None:
        assert bool(report.failures) is is_cut
    assert_nothing_is_leaked(stack)


def test_the_resolver_gives_up_after_a_second(stack: Stack) -> None:
    """With the default, a silent name server would block each waiting thread for ten seconds."""
    options = stack.compose("exec", "--no-TTY", "api-blue", "cat", "/etc/resolv.conf")
    assert re.search(r"^options .*timeout:1\b.*attempts:1\b", options, re.MULTILINE), options
