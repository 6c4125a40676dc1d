"""The steps of a story: prints each, keeps its seconds, and turns a stop into a failure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stack.failure import Failure
from stack.runner import ANY_ENTRY, Runner


@dataclass
class Steps:
    """The steps so far; `started` is the runner's clock at the beginning."""

    runner: Runner
    started: float
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Announce a step; what is yielded takes the line that says how it ended."""
        begun = self.runner.clock()
        self.runner.say(f"==> {name} [{begun - self.started:.1f} s]")
        outcome: list[str] = []
        yield outcome.append
        self.seconds[name] = round(self.runner.clock() - begun, 1)
        ended = outcome[-1] if outcome else "done"
        if not self.runner.is_dry:
            self.runner.say(f"    {ended} ({self.seconds[name]:.1f} s)")


# What ends a story on its way: a failed step, a full disk, a signal.
STOPPED = (Failure, OSError, KeyboardInterrupt)


def as_failure(stopped: BaseException, runbook: str) -> Failure:
    """Return what stopped a story as a failure; `runbook` is the entry for one that names none."""
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
    return Failure(
        f"stopped by {str(stopped) or 'Ctrl-C'}",
        hints=["./scripts/status.sh shows how the stack is now"],
        runbook=runbook,
    )
