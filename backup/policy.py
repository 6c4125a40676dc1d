"""The operator's backup policy, read once from the environment: intervals, retention, places.

`.env.example` explains each key.
"""

import os
from dataclasses import dataclass

from backup import offsite
from backup.failure import Failure
from backup.offsite import Offsite


def _read_number(key: str, default: float) -> float:
    text = os.environ.get(key) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise Failure(f"{key} is not a number above 0", ["correct .env, then ./scripts/up.sh"])
    return value


@dataclass(frozen=True)
class Policy:
    """Intervals in hours, the retention in days, and the second repository, if there is one."""

    full_hours: float
    backup_hours: float
    drill_hours: float
    offsite_drill_hours: float
    keep_days: int
    offsite: Offsite | None = None


def load() -> Policy:
    """Return the policy.

    Raises:
        Failure: when a value is not a number above 0, or the second repository lacks a setting.
    """
    return Policy(
        full_hours=_read_number("BACKUP_FULL_HOURS", 168),
        backup_hours=_read_number("BACKUP_HOURS", 6),
        drill_hours=_read_number("DRILL_HOURS", 24),
        offsite_drill_hours=_read_number("OFFSITE_DRILL_HOURS", 168),
        keep_days=int(_read_number("BACKUP_KEEP_DAYS", 14)),
        offsite=offsite.load(),
    )
