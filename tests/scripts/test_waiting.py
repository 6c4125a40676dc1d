"""The waiting loop checks at once, ends at its deadline, and does nothing in a dry run."""

import pytest
from stack.waiting import wait_until

from tests.scripts.recording import RecordingRunner


def test_a_condition_that_holds_is_not_waited_for(runner: RecordingRunner) -> None:
    assert wait_until(runner, lambda: True, 10)
    assert runner.now == 0


def test_it_returns_as_soon_as_the_condition_holds(runner: RecordingRunner) -> None:
    assert wait_until(runner, lambda: runner.now >= 3, 10, pause_seconds=1)
    assert runner.now == 3


@pytest.mark.parametrize("seconds", [0, 7, 10.1])
def test_it_ends_with_its_time_and_looks_once_more_then(
    runner: RecordingRunner, seconds: float
) -> None:
    looks: list[float] = []

    def never() -> bool:
        looks.append(runner.now)
        return False

    assert not wait_until(runner, never, seconds, pause_seconds=5)
    assert runner.now == looks[-1] == seconds


def test_a_dry_run_looks_at_nothing_and_goes_on() -> None:
    def fail() -> bool:
        raise AssertionError("a dry run must not check the condition")

    assert wait_until(RecordingRunner(is_dry=True), fail, 10)
