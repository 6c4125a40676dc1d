"""The simulated clock: it advances when a story waits, a command takes time, or time passes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Clock:
    """The seconds since the simulation began; the simulated host has no other time."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """Return the present time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let seconds pass."""
        self.now += max(0.0, seconds)

    def moment(self) -> datetime:
        """Return the present date and time of the host."""
        return self.moment_at(self.now)

    def moment_at(self, seconds: float) -> datetime:
        """Return the date and time after these seconds of the simulation."""
        return BEGIN + timedelta(seconds=seconds)


def datetime_of(moment: Callable[[], datetime]) -> type[datetime]:
    """Return a `datetime` class whose `now` is the simulated time."""

    class SimulatedDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            at = moment()
            return cls(
                at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, tz or UTC
            )

    return SimulatedDatetime
