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


KNOWN: Mapping[str, Known] = {}


def is_known(violation: Violation, step: Step) -> str:
    """Return the name of the exception that covers a violation, or an empty text."""
    for name, known in KNOWN.items():
        if known.covers(violation, step):
            return name
    return ""
