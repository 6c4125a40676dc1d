"""The exceptions: faults of today's product that a history meets and that are kept as tests.

Each has a history in kept.py that is expected to fail. When the product is mended, its test fails
and says so, and the exception goes.
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
