"""A command as data: its words and what it runs with. The runner runs it, and nothing here does."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class Command:
    """One program with its arguments.

    Attributes:
        argv: the program and its arguments.
        env: variables that the program gets besides the environment of the scripts.
        unset: variables of the environment of the scripts that the program does not get.
        timeout_seconds: the time limit; None means the runner's limit for a question or a change.
        stdin: the text on standard input.
        may_fail: whether a failure is an answer, not an error; a question may always fail.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    stdin: str = ""
    may_fail: bool = False
    unset: Sequence[str] = ()

    def __str__(self) -> str:
        """Return the command as a person types it, the variables first."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*variables, shlex.join(self.argv)])


class Options(TypedDict, total=False):
    """The options that a builder passes on to its Command."""

    env: Mapping[str, str]
    timeout_seconds: float | None
    stdin: str
    may_fail: bool
