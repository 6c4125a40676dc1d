"""The failure of a script: observation, hints, runbook heading and exit code. Prints nothing."""

from dataclasses import dataclass, field

FAILED_UNCHANGED = 1
USAGE = 2
LOCKED = 3
ROLLED_BACK = 4
NEEDS_A_PERSON = 5


@dataclass
class Failure(Exception):
    """A failure addressed to the person who runs the script.

    Args:
        observation: what happened, with values, in lower case.
        hints: what to do, one sentence each.
        runbook: a heading of `docs/runbook.md`, as its anchor.
        evidence: the last lines of the failed command, printed before the error.
        code: the exit code of `docs/runbook.md#exit-codes`.
    """

    observation: str
    hints: list[str] = field(default_factory=list)
    runbook: str = ""
    evidence: str = ""
    code: int = FAILED_UNCHANGED

    def __str__(self) -> str:
        # A hint may quote an answer of several lines.
        hints = [" ".join(hint.split()) for hint in self.hints]
        lines = [f"error: {self.observation}", *(f"HINT: {hint}" for hint in hints)]
        if self.runbook:
            lines.append(f"RUNBOOK: docs/runbook.md#{self.runbook}")
        return "\n".join(lines)

    def also(self, second: BaseException, action: str) -> None:
        """Append a second failure, for example of the undo, as a hint on one line."""
        observed = second.observation if isinstance(second, Failure) else str(second)
        if isinstance(second, KeyboardInterrupt):
            observed = f"stopped by {observed or 'Ctrl-C'}"
        observed = observed or type(second).__name__
        self.hints.append(f"{action} failed too: {'; '.join(observed.splitlines())}")
