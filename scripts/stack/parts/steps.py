"""Prints the steps of a story, keeps their seconds, and turns an interruption into a failure."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stack.failure import Failure
from stack.runner import ANY_ENTRY, Runner


@dataclass
class Steps:
    """The steps of a story.

    Args:
        started: the runner's clock when the story began.
        seconds: how long each completed step took.
    """

    runner: Runner
    started: float
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Display a step during the block; yield a function that prints the result."""
        display, begun = self.runner.display, self.runner.clock()
        display.begin_step(name, begun - self.started)
        results: list[str] = []
        try:
            yield results.append
        except BaseException as error:
            result = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            display.fail_step(result, self.runner.clock() - begun)
            raise
        seconds = self.runner.clock() - begun
        self.seconds[name] = round(seconds, 1)
        if not self.runner.is_dry:
            display.end_step(results[-1] if results else "done", seconds)


# Exceptions that stop a story: a failed step, a full disk, a fault of these scripts, a signal.
STOPPED = (Exception, KeyboardInterrupt)


def as_failure(stopped: BaseException, runbook: str) -> Failure:
    """Return the exception as a failure; `runbook` is the entry for exceptions without one."""
    if isinstance(stopped, Failure):
        if stopped.runbook in {"", ANY_ENTRY}:
            stopped.runbook = runbook
        return stopped
    if isinstance(stopped, OSError):
        return Failure(
            f"{stopped.strerror or stopped}: {stopped.filename or 'no file named'}",
            hints=["df -h shows full disks; STATE_DIR and SECRETS_DIR in .env say where files go"],
            runbook="disk-full",
        )
    if isinstance(stopped, Exception):
        return unexpected(stopped, runbook)
    return Failure(
        f"stopped by {str(stopped) or 'Ctrl-C'}",
        hints=["./scripts/status.sh shows the present state of the stack"],
        runbook=runbook,
    )


def unexpected(error: Exception, runbook: str) -> Failure:
    """Return the failure for an exception that no step expected, with its traceback as evidence."""
    words = " ".join(str(error).split())[:200]
    return Failure(
        f"a fault of these scripts: {type(error).__name__}: {words}".rstrip(": "),
        hints=[
            "report it with the lines above",
            "./scripts/status.sh shows the present state of the stack",
        ],
        runbook=runbook,
        evidence="".join(traceback.format_exception(error)),
    )
