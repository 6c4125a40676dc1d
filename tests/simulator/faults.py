"""The faults at one step of a command: it fails, hangs or is cut off, or the story is killed.

A step is an effect: a command that changes something, or a file that is written. Queries are
counted separately.
"""

from dataclasses import dataclass

KILLED_BEFORE, KILLED_MIDWAY, KILLED_AFTER = "killed before", "killed midway", "killed after"
FAILS, FAILS_MIDWAY, FAILS_AFTER = "fails", "fails midway", "fails after"
HANGS, HANGS_AFTER, STOPPED, ANSWERS_NOT = "hangs", "hangs after", "stopped", "answers not"
STEP_MODES = (
    KILLED_BEFORE,
    KILLED_MIDWAY,
    KILLED_AFTER,
    FAILS,
    FAILS_MIDWAY,
    FAILS_AFTER,
    HANGS,
    HANGS_AFTER,
    STOPPED,
)
# A file is written at once or not at all, except that a full disk may cut an append.
FILE_MODES = (KILLED_BEFORE, KILLED_AFTER, FAILS, STOPPED)


class Killed(BaseException):
    """SIGKILL: no handler of a story may catch it, and the story's later clean-up has no effect.

    The runner refuses every later effect of the story, and the operator's shell puts back the files
    that an orderly end would have changed (operators.py).
    """


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        mode: one of STEP_MODES, or ANSWERS_NOT for a question.
        at: the number of the step, or of the question, counted from 1.
    """

    mode: str
    at: int

    def __str__(self) -> str:
        return f"{self.mode} {'question' if self.mode == ANSWERS_NOT else 'step'} {self.at}"


def parse(text: str) -> Fault | None:
    """Parse the text of a fault; an empty text means no fault."""
    if not text:
        return None
    mode, _, number = text.replace(" question ", " step ").rpartition(" step ")
    return Fault(mode, int(number))
