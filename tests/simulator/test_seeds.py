"""Random actions of operators and faults: the invariants hold after each."""

import os
import time

import pytest

from tests.conftest import Figure
from tests.simulator import seeds
from tests.simulator.host import Copy, Host

PARTS = 2  # two processes share the histories (tests/scheduling.py)
# About 20,000 actions: a minute of two cores, at the 170 to 190 actions/s that each of them gave.
EVERY_CHANGE = 450
# Three minutes of two cores; SLIPWAY_SIMULATED_HISTORIES=20000 takes forty.
NIGHTLY = int(os.environ.get("SLIPWAY_SIMULATED_HISTORIES", "1500"))
FIRST_NIGHTLY = 100_000


def play(host: Host, copies: dict[str, Copy], numbers: range) -> str:
    """Play the histories of these seeds; return the figures."""
    started, count = time.process_time(), 0
    for number in numbers:
        count += len(seeds.play(host, copies, number).lines)
    seconds = time.process_time() - started
    return f"{count} simulated actions in {len(numbers)} histories, {count / seconds:.0f} a second"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_random_history_breaks_an_invariant(
    host: Host, copies: dict[str, Copy], figure: Figure, part: int
) -> None:
    figure(play(host, copies, range(EVERY_CHANGE)[part::PARTS]))


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(PARTS))
def test_no_random_history_of_the_night_breaks_an_invariant(
    host: Host, copies: dict[str, Copy], figure: Figure, part: int
) -> None:
    numbers = range(FIRST_NIGHTLY, FIRST_NIGHTLY + NIGHTLY)
    figure(play(host, copies, numbers[part::PARTS]))
