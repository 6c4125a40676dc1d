"""The one loop that waits for a condition with a deadline."""

from collections.abc import Callable

from stack.runner import Runner

PAUSE_SECONDS = 0.2


def wait_until(
    runner: Runner,
    condition: Callable[[], bool],
    seconds: float,
    *,
    pause_seconds: float = PAUSE_SECONDS,
) -> bool:
    """Check until the condition is true or the time is over; return whether it is true.

    A dry run changes nothing, so the condition cannot become true: it returns True without a check.
    """
    if runner.is_dry:
        return True
    deadline = runner.clock() + seconds
    while not condition():
        left = deadline - runner.clock()
        if left <= 0:
            return False
        runner.sleep(min(pause_seconds, left))
    return True
