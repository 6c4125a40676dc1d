"""The failure of a task or a command: an observation and hints. It prints nothing."""

from dataclasses import dataclass, field


@dataclass
class Failure(Exception):
    """A failure addressed to the operator.

    Args:
        observation: what was observed, with values, in lower case.
        hints: what the operator can do, one sentence each.
    """

    observation: str
    hints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.observation
