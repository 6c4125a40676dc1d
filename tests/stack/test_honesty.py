"""The simulated host is honest: the real engine ends sixty of its histories in the same way."""

import os
import time
from collections.abc import Iterator

import pytest
from stack.config import environment
from stack.config.project import BASES

from tests.conftest import Figure
from tests.simulator import cover, likeness, starts
from tests.simulator.cover import Chooser, Chosen
from tests.simulator.host import Host
from tests.simulator.likeness import Line
from tests.stack import real_play
from tests.stack.harness import PROJECT, Stack
from tests.stack.real_host import RealHost

# Alone: it has an hour, and waits for a few things as long as a quiet machine needs.
pytestmark = [pytest.mark.drill, pytest.mark.nightly, pytest.mark.alone]
MOST_MINUTES = 60
# The variables of the person who runs the tests; the simulated host takes some away meanwhile.
SHELL = dict(os.environ)
# For a look at a few: SLIPWAY_TEST_HISTORIES="0 5 17".
ONLY = [int(number) for number in SHELL.get("SLIPWAY_TEST_HISTORIES", "").split()]


@pytest.fixture(scope="module")
def simulated() -> list[tuple[Chosen, list[Line]]]:
    """The chosen histories, with their outcomes on the simulated host."""
    with starts.new_folder() as folder:
        made, host = cover.make_starts(folder), Host(folder)
        chosen = Chooser(host, made).choose()
        chosen = [chosen[number] for number in ONLY] if ONLY else chosen
        played = [(each, likeness.simulate(host, made[each.start], each)) for each in chosen]
    outcomes = [(line.action, line.facts) for _, lines in played for line in lines]
    assert [str(a) for a, facts in outcomes if a.fault and not (facts and facts.is_struck)] == []
    return played


@pytest.fixture(scope="module")
def real(prepared: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    """A real host with the base images of the other stacks; its stack is removed at the end."""
    text = (prepared.root / ".env").read_text(encoding="utf-8")
    values = {line.key: line.value for line in environment.parse(text)}
    bases = {f"{name.upper()}_IMAGE": values[f"{name.upper()}_IMAGE"] for name in BASES}
    folder = tmp_path_factory.mktemp("honesty")
    host = RealHost(folder, f"{PROJECT}-honest", bases, SHELL)
    try:
        yield host
    finally:
        host.remove()


def test_the_real_engine_ends_the_histories_in_the_same_way(
    simulated: list[tuple[Chosen, list[Line]]], real: RealHost, figure: Figure
) -> None:
    started, differences = time.monotonic(), []
    for number, (chosen, lines) in enumerate(simulated):
        begun = time.monotonic()
        difference = likeness.compare(lines, real_play.play(real, chosen.start, lines))
        seconds = time.monotonic() - begun
        print(f"{number}: {seconds:.0f} s, from: {chosen.start}\n{difference or 'alike'}")
        if difference:
            differences.append(f"from: {chosen.start}\n{difference}")
    minutes = (time.monotonic() - started) / 60
    actions = sum(len(lines) for _, lines in simulated)
    alike = len(simulated) - len(differences)
    figure(
        f"{alike} of {len(simulated)} histories, {actions} actions, ended on the real engine as "
        f"on the simulated host, in {minutes:.0f} min"
    )
    assert "\n\n".join(differences) == ""
    assert minutes < MOST_MINUTES
