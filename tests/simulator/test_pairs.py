"""A command that is killed or fails at one of its steps, and the command after it."""

from collections.abc import Iterable, Sequence

import pytest

from tests.conftest import Figure
from tests.simulator import faults, pairs, starts
from tests.simulator.host import Copy, Host
from tests.simulator.pairs import Count

# Two processes share the first commands of each start state (tests/scheduling.py).
PARTS = 2
LEAST_PAIRS = 300  # each part has more


def first_commands(start: str, part: int) -> Sequence[str]:
    """Return the first commands of the pairs in one part of a start state."""
    # On an empty host each command is refused until `up` has run, which `deploy` runs itself.
    names = pairs.ON_EMPTY if start == "empty host" else tuple(pairs.COMMANDS)
    return names[part::PARTS]


def play(
    host: Host,
    copies: dict[str, Copy],
    start: str,
    names: Iterable[str],
    modes: Sequence[str],
    *,
    is_nightly: bool = False,
) -> Count:
    """Play the pairs that begin with these commands in one start state."""
    count, copy = Count(), copies[start]
    for name in names:
        count.add(pairs.play_all(host, copy, start, name, modes=modes, has_questions=is_nightly))
    return count


def check(count: Count, start: str, figure: Figure) -> None:
    """Keep the figures, and print the first histories that broke an invariant."""
    figure(f"{count.pairs} pairs from {start}, {count.actions} simulated actions")
    assert [str(breach) for breach in count.breaches[:3]] == []


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("start", starts.STARTS)
def test_after_a_kill_or_a_failed_step_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str, part: int
) -> None:
    count = play(host, copies, start, first_commands(start, part), pairs.EVERY_CHANGE)
    check(count, start, figure)
    assert count.pairs > LEAST_PAIRS


def test_the_parts_have_every_first_command() -> None:
    for start in starts.STARTS:
        names = [name for part in range(PARTS) for name in first_commands(start, part)]
        wanted = pairs.ON_EMPTY if start == "empty host" else pairs.COMMANDS
        assert sorted(names) == sorted(wanted)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("start", starts.STARTS)
def test_after_every_kind_of_fault_the_next_command_is_right(
    host: Host, copies: dict[str, Copy], figure: Figure, start: str, part: int
) -> None:
    names, modes = first_commands(start, part), faults.STEP_MODES
    check(play(host, copies, start, names, modes, is_nightly=True), start, figure)


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
