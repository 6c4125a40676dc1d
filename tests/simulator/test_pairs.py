"""A command that is killed or fails at one of its steps, and the command after it."""

from collections.abc import Sequence

import pytest

from tests.conftest import Figure
from tests.simulator import faults, pairs, starts
from tests.simulator.host import Copy, Host
from tests.simulator.pairs import Count


def play(
    host: Host, start: Copy, title: str, modes: Sequence[str], *, is_nightly: bool = False
) -> Count:
    """Play the pairs of one start state."""
    count = Count()
    # On an empty host, each command refuses until `up` has run; `deploy` runs it itself.
    for name in pairs.ON_EMPTY if title == "empty host" else pairs.COMMANDS:
        count.add(pairs.play_all(host, start, title, name, modes=modes, has_questions=is_nightly))
    return count


def check(count: Count, start: str, figure: Figure) -> None:
    """Keep the figures, and print the first histories that broke an invariant."""
    figure(f"{count.pairs} pairs from {start}, {count.actions} simulated actions")
    assert [str(breach) for breach in count.breaches[:3]] == []


@pytest.mark.parametrize("start", starts.STARTS)
def test_after_a_kill_or_a_failed_step_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str
) -> None:
    count = play(host, copies[start], start, pairs.EVERY_CHANGE)
    check(count, start, figure)
    assert count.pairs > 1000


@pytest.mark.nightly
@pytest.mark.parametrize("start", starts.STARTS)
def test_after_every_kind_of_fault_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str
) -> None:
    modes = faults.STEP_MODES
    check(play(host, copies[start], start, modes, is_nightly=True), start, figure)


@pytest.mark.nightly
@pytest.mark.parametrize("start", starts.PRODUCT)
def test_after_a_kill_in_every_start_state_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str
) -> None:
    count, made = Count(), starts.make(host, copies, start)
    for name in pairs.COMMANDS:
        modes, following = (faults.KILLED_AFTER,), pairs.SHORT_NEXT
        count.add(pairs.play_all(host, made, start, name, modes=modes, following=following))
    check(count, start, figure)
