"""Random actions of operators and faults: the invariants hold after each."""

import os
import time

import pytest

from tests.conftest import Figure
from tests.simulator import seeds
from tests.simulator.host import Copy, Host

# About 8,000 actions: 60 s of one core at the 130 actions/s that two shared cores gave. The 20,000
# that were wanted take 150 s.
EVERY_CHANGE = 190
# A sixth of an hour; SLIPWAY_SIMULATED_HISTORIES=20000 takes two hours.
NIGHTLY = int(os.environ.get("SLIPWAY_SIMULATED_HISTORIES", "1500"))
FIRST_NIGHTLY = 100_000


def play(host: Host, copies: dict[str, Copy], numbers: range) -> str:
    """Play the histories of these seeds; return the figures."""
    started, count = time.process_time(), 0
    for number in numbers:
        count += len(seeds.play(host, copies, number).lines)
    seconds = time.process_time() - started
    return f"{count} simulated actions in {len(numbers)} histories, {count / seconds:.0f} a second"


def test_no_random_history_breaks_an_invariant(
    host: Host, copies: dict[str, Copy], figure: Figure
) -> None:
    figure(play(host, copies, range(EVERY_CHANGE)))


@pytest.mark.nightly
def test_no_random_history_of_the_night_breaks_an_invariant(
    host: Host, copies: dict[str, Copy], figure: Figure
) -> None:
    figure(play(host, copies, range(FIRST_NIGHTLY, FIRST_NIGHTLY + NIGHTLY)))
