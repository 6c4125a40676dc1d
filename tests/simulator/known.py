"""The exceptions: present faults of the product that a history found, kept as tests.

Each has a history in kept.py that is expected to fail. When the fault is corrected, that test fails
and prints so, and the exception is deleted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.simulator.invariants import Step, Violation


@dataclass(frozen=True)
class Known:
    """One exception.

    Attributes:
        reason: the fault in words.
        covers: whether a violation in a step is this fault.
    """

    reason: str
    covers: Callable[[Violation, Step], bool]


def is_draining_worker_taken_for_live(violation: Violation, step: Step) -> bool:
    """Whether `up` found no link, and treated the slot of a draining worker as the live slot."""
    is_its_worker = violation.rule == "one live slot" or "takes no jobs" in violation.text
    return is_its_worker and not step.before.link and step.action.name == "up"


KNOWN: Mapping[str, Known] = {
    "a link lost while a worker drains": Known(
        "for 30 s after a deploy or a rollback the worker of the former slot still runs. If the "
        "live link is lost meanwhile, `up.sh` takes that slot for the live one",
        is_draining_worker_taken_for_live,
    ),
}


def is_known(violation: Violation, step: Step) -> str:
    """Return the name of the exception that covers a violation, or an empty text."""
    for name, known in KNOWN.items():
        if known.covers(violation, step):
            return name
    return ""
