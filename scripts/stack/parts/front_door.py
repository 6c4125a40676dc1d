"""Waits until the front door answers as it must."""

from stack.config.project import Project
from stack.https import Answer
from stack.parts import observation
from stack.runner import Runner
from stack.waiting import wait_until


def wait_for_answer(
    runner: Runner,
    project: Project,
    seconds: float,
    *,
    release: str = "",
    slot: str = "",
    pause_seconds: float = 0.2,
) -> tuple[bool, Answer]:
    """Wait until the front door is ready, and by this release from this slot if they are named.

    Returns:
        Whether it is, and the last answer.
    """
    answer = Answer(0, error="not asked")

    def is_ready() -> bool:
        nonlocal answer
        answer = observation.ask(runner, project, "/readyz")
        answering, place = observation.answered_by(answer)
        return answer.status == 200 and release in {"", answering} and slot in {"", place}

    is_answered = wait_until(runner, is_ready, seconds, pause_seconds=pause_seconds)
    return is_answered, answer


def describe(answer: Answer) -> str:
    """Return the status and the sender of an answer, or the error, for a message."""
    if not answer.status:
        return answer.error
    release, slot = observation.answered_by(answer)
    return f"HTTP {answer.status} from release '{release}' in slot '{slot}'"
