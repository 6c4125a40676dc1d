"""The form of every answer of this package to a script: one line of JSON on stdout.

The line has one key. A command prints its log or its progress first and its answer last.
Partner: scripts/stack/parts/backup_service.py, which reads it.

    {"result": {...}}                                facts by name, after a success
    {"error": {"observation": "...", "hints": []}}   after a failure
    {"rows": [{"name", "is_well", "text"}, ...]}     the state of the backups, for status.sh
"""

import json
import sys
from collections.abc import Mapping, Sequence

from backup.failure import Failure


def format_result(facts: Mapping[str, object]) -> str:
    """Return the answer of a command that succeeded."""
    return json.dumps({"result": dict(facts)})


def format_error(failure: Failure) -> str:
    """Return the answer of a command that failed."""
    error = {"observation": failure.observation, "hints": failure.hints}
    return json.dumps({"error": error})


def format_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the answer with the state of the backups."""
    return json.dumps({"rows": [dict(row) for row in rows]})


def write(answer: str) -> None:
    """Write an answer at once, as the last line of a command."""
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()
