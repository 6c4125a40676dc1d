"""Undoes a failed story: each step pushes its undo, and traffic is undone first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stack.failure import NEEDS_A_PERSON, Failure
from stack.parts.steps import STOPPED, as_failure

Action = Callable[[Failure], None]


@dataclass
class Undo:
    """The undo steps of one story.

    Attributes:
        order: the names of the steps in undo order. Traffic comes first (nginx, then the switch),
            evidence before the containers from which it is read, records and notifications last.
        vital: the steps whose failed undo leaves nothing that serves; a person must then act.
        final: the steps whose undo still runs after such a failure.
    """

    order: tuple[str, ...]
    vital: frozenset[str]
    final: tuple[str, ...]
    actions: dict[str, Action] = field(default_factory=dict)

    def push(self, name: str, action: Action) -> None:
        """Add the undo of a step, or replace it; call this before the step."""
        if name not in self.order:
            raise ValueError(f"no step is called {name}")
        self.actions[name] = action

    @contextmanager
    def on_failure(self, runbook: str) -> Iterator[None]:
        """Undo the steps if the block fails or is interrupted, and raise the first failure.

        Args:
            runbook: the entry for a failure that names none.
        """
        try:
            yield
        except STOPPED as stopped:
            failure = as_failure(stopped, runbook)
            self.run(failure)
            raise failure from None

    def run(self, failure: Failure) -> None:
        """Undo every step; a second failure or signal becomes a hint, and the first remains."""
        left = self.order
        for name in self.order:
            if name not in left or name not in self.actions:
                continue
            try:
                self.actions[name](failure)
            except STOPPED as second:
                if name not in self.vital:
                    failure.also(second, f"undo ({name})")
                    continue
                failure.code = NEEDS_A_PERSON
                failure.also(second, "undo")
                left = self.final


@contextmanager
def beyond_undo(runbook: str, reword: Action) -> Iterator[None]:
    """Raise the failure of a block that must not be undone; a person is needed.

    Args:
        runbook: the entry for a failure that names none.
        reword: adds to the failure what is live now.
    """
    try:
        yield
    except STOPPED as stopped:
        failure = as_failure(stopped, runbook)
        failure.code = NEEDS_A_PERSON
        reword(failure)
        raise failure from None
