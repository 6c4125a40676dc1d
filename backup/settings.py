"""What the operator wrote about backups, read once from the environment (`.env.example` explains each key)."""

import os
from dataclasses import dataclass

from backup.commands import Failed
from backup.offsite import Offsite
from backup.offsite import load as load_offsite


def _number(key: str, default: float) -> float:
    text = os.environ.get(key) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise Failed(f"{key} is not a number above 0", ["correct .env, then ./scripts/up.sh"])
    return value


@dataclass(frozen=True)
class Settings:
    """How often what is done, in hours, for how many days all can be restored, and the second repository, if any."""

    full_hours: float
    backup_hours: float
    drill_hours: float
    offsite_drill_hours: float
    keep_days: int
    offsite: Offsite | None = None


def load() -> Settings:
    """Return the settings.

    Raises:
        Failed: where one is not a number above 0, or the second repository is half configured.
    """
    return Settings(
        full_hours=_number("BACKUP_FULL_HOURS", 168),
        backup_hours=_number("BACKUP_HOURS", 6),
        drill_hours=_number("DRILL_HOURS", 24),
        offsite_drill_hours=_number("OFFSITE_DRILL_HOURS", 168),
        keep_days=int(_number("BACKUP_KEEP_DAYS", 14)),
        offsite=load_offsite(),
    )
