"""A command as data: its words, environment and limits. Only the runner runs it."""

import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class Command:
    """One program with its arguments.

    Attributes:
        argv: the program and its arguments.
        env: variables that the program gets besides the environment of the scripts.
        timeout_seconds: the time limit; None means the runner's limit for a query or a change.
        stdin: the text on standard input.
        answers: the exit codes that are results; the runner raises for any other code.
        may_fail: whether every exit code is a result, which the caller judges.
        ends_alone: whether the command ends with its own process, even if a process that it left in
            the background keeps its output open.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    stdin: str = ""
    answers: Container[int] = (0,)
    may_fail: bool = False
    ends_alone: bool = False

    def accepts(self, code: int) -> bool:
        """Whether an exit code is a result, and not an error."""
        return self.may_fail or code in self.answers

    def __str__(self) -> str:
        """Return the command as a person types it, with the variables first."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*variables, shlex.join(self.argv)])


class Options(TypedDict, total=False):
    """The options that a builder passes on to its Command."""

    env: Mapping[str, str]
    timeout_seconds: float | None
    stdin: str
    answers: Container[int]
    may_fail: bool
