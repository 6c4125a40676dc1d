"""Writes the service's log: one line of JSON for each event, as every service of the stack does."""

import json
import sys
from datetime import UTC, datetime


def write(message: str, *, action: str) -> None:
    """Write one event to standard output; docs/runbook.md lists the actions."""
    event = {
        "timestamp": datetime.now(UTC).isoformat(),
        "level": "INFO",
        "service": "counter",
        "message": message,
        "action": action,
    }
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
