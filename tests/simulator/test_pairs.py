"""A command that is killed or fails at one of its steps, and the command after it."""

import pytest

from tests.conftest import Figure
from tests.simulator import faults, pairs, starts
from tests.simulator.host import Copy, Host
from tests.simulator.pairs import Count


def play(host: Host, copies: dict[str, Copy], start: str, *, is_nightly: bool = False) -> Count:
    """Play the pairs of one start state."""
    count = Count()
    modes = faults.STEP_MODES if is_nightly else pairs.EVERY_CHANGE
    # On an empty host each command is refused until `up` has run, which `deploy` runs itself.
    names = pairs.ON_EMPTY if start == "empty host" else tuple(pairs.COMMANDS)
    for name in names:
        count.add(
            pairs.play_all(host, copies[start], start, name, modes=modes, has_questions=is_nightly)
        )
    return count


@pytest.mark.parametrize("start", starts.STARTS)
def test_after_a_kill_or_a_failed_step_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str
) -> None:
    count = play(host, copies, start)
    figure(f"{count.pairs} pairs from {start}, {count.actions} simulated actions")
    assert [str(breach) for breach in count.breaches[:3]] == []
    assert count.pairs > 100


@pytest.mark.nightly
@pytest.mark.parametrize("start", starts.PRODUCT)
def test_after_every_fault_in_every_start_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str
) -> None:
    made = starts.make(host, copies, start)
    count = play(host, {start: made}, start, is_nightly=True)
    figure(f"{count.pairs} pairs from {start}, {count.actions} simulated actions")
    assert [str(breach) for breach in count.breaches[:3]] == []
