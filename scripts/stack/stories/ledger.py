"""The record of what was done to the stack: one JSON object a line, only ever appended to."""

import getpass
import json
import os
from datetime import UTC, datetime
from typing import Any

from stack.config.project import Project
from stack.runner import Runner


def record(runner: Runner, project: Project, action: str, **facts: Any) -> None:
    """Append what was done, by whom and when (UTC)."""
    runner.make_directory(project.state, 0o750)
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": os.environ.get("SUDO_USER") or getpass.getuser(),
        "action": action,
        **facts,
    }
    runner.append(project.ledger, json.dumps(entry))


def last(project: Project) -> dict[str, Any] | None:
    """Return the newest readable entry, or None."""
    if not project.ledger.exists():
        return None
    for line in reversed(project.ledger.read_text(encoding="utf-8").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a line cut off by a full disk or a power cut
        if isinstance(entry, dict):
            return entry
    return None
