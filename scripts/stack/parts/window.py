"""The rollback window: the former slot stays warm, so that a rollback is one rename."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.parts import database, ledger, releases, slots
from stack.rules import migrations
from stack.runner import Runner

ENDS = "window_ends"
# The process looks at the clock every 5 s (stories/retire.py), and then waits for the lock.
OVERDUE_SECONDS = 60
# Leaves the lock to the next command that a person types, such as deploy.sh after up.sh.
RESUMED_SECONDS = 30
LONGEST_SECONDS = 10 * 365 * 86400  # the end of a longer window may have no date
Row = tuple[bool, str, str]


def schedule_end(
    runner: Runner, project: Project, slot: str, release: str, seconds: float | None = None
) -> None:
    """Start a process that outlives this one and retires the slot at the end of the window."""
    after = project.setting("ROLLBACK_WINDOW_SECONDS") if seconds is None else f"{seconds:.0f}"
    entry = str(len(ledger.entries(project)))
    story = [sys.executable, "-m", "stack", "retire", slot, release]
    command = Command(
        [*story, "--after", after, "--entry", entry],
        env={"PYTHONPATH": str(project.root / "scripts")},
    )
    runner.start(command, project.state / "retire.log")


def facts(project: Project) -> dict[str, str]:
    """Return what the ledger records of a window that begins now: its end (UTC)."""
    end = datetime.now(UTC) + timedelta(seconds=min(project.window_seconds, LONGEST_SECONDS))
    return {ENDS: end.isoformat(timespec="seconds")}


def resume(runner: Runner, project: Project, booted_at: datetime) -> str:
    """Start the process again if a reboot ended it, or if the window is over and still open.

    Return what happens to the window; empty if nothing had to be done.
    """
    entry = _open_entry(project)
    if entry is None:
        return ""
    end, now = _end_of(entry), datetime.now(UTC)
    seconds: float = RESUMED_SECONDS
    is_rebooted = datetime.fromisoformat(str(entry["at"])) <= booted_at
    if _is_overdue(entry):
        note = f"is overdue, and ends in {RESUMED_SECONDS} s"
    elif is_rebooted and end:
        # The clock may have been wrong: the rest is at most the whole window.
        rest = min((end - now).total_seconds(), project.window_seconds)
        seconds, note = max(rest, RESUMED_SECONDS), "goes on after the reboot"
    elif is_rebooted:
        seconds, note = project.window_seconds, "that a reboot ended begins again"
    else:
        return ""
    present = slots.look(runner, project)
    schedule_end(runner, project, present.idle, present.idle_release, seconds)
    return f"the rollback window {note}"


def read_rows(project: Project) -> list[Row]:
    """Return a row of `status.sh` if the window is over and no process has ended it."""
    entry = _open_entry(project)
    if entry is None or not _is_overdue(entry):
        return []
    text = f"should have ended at {entry[ENDS]}, and is open: ./scripts/up.sh ends it"
    return [(False, "window", text)]


def _open_entry(project: Project) -> dict[str, Any] | None:
    """Return the entry that began the window, unless the window has ended since."""
    begun = None
    for entry in ledger.entries(project):
        action, result = entry.get("action"), entry.get("result")
        if action == "retire" or result in {"begun", "rolled back"}:
            begun = None
        elif action in {"deploy", "rollback"} and result == "done":
            begun = entry
    return begun


def _is_overdue(entry: dict[str, Any]) -> bool:
    end = _end_of(entry)
    return end is not None and datetime.now(UTC) >= end + timedelta(seconds=OVERDUE_SECONDS)


def _end_of(entry: dict[str, Any]) -> datetime | None:
    """Return the end of a window; None in an entry of an earlier version."""
    try:
        end = datetime.fromisoformat(str(entry.get(ENDS)))
    except ValueError:
        return None
    return end if end.tzinfo else None


def contract_schema(runner: Runner, project: Project, live: str) -> str:
    """Apply the `post` migrations of the live slot; return the last line of `migrate`, if any."""
    head = database.migration_head(runner)
    known = releases.migrations_of(runner, project, live)
    is_known = head in {revision.identifier for revision in known}
    if not is_known or not migrations.pending(known, head):
        return ""
    migrated = runner.run(engine.migrate(live))
    return (migrated.out.strip().splitlines() or [""])[-1]
