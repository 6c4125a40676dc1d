"""Waits until the front door is ready."""

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
    """Wait until the front door is ready, from this release and this slot if they are given.

    Returns:
        Whether it is ready, and the last answer.
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
    """Describe an answer for a message: its status and sender, or its error."""
    if not answer.status:
        return answer.error
    release, slot = observation.answered_by(answer)
    return f"HTTP {answer.status} from release '{release}' in slot '{slot}'"
