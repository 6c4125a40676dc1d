"""The rollback window: the former slot stays warm, so that a rollback is one rename."""

import sys
from datetime import datetime

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.parts import database, ledger, releases, slots
from stack.rules import migrations
from stack.runner import Runner


def schedule_end(runner: Runner, project: Project, slot: str, release: str) -> None:
    """Start a process that outlives this one and retires the slot at the end of the window."""
    seconds = project.setting("ROLLBACK_WINDOW_SECONDS")
    entry = str(len(ledger.entries(project)))
    story = [sys.executable, "-m", "stack", "retire", slot, release]
    command = Command(
        [*story, "--after", seconds, "--entry", entry],
        env={"PYTHONPATH": str(project.root / "scripts")},
    )
    runner.start(command, project.state / "retire.log")


def resume(runner: Runner, project: Project, booted_at: datetime) -> bool:
    """Restart the window if a reboot ended it; return whether that was so."""
    past = [
        entry
        for entry in ledger.entries(project)
        if entry.get("action") in {"deploy", "rollback", "retire"}
    ]
    is_due = bool(past) and past[-1]["action"] != "retire" and past[-1].get("result") == "done"
    if not is_due or datetime.fromisoformat(str(past[-1]["at"])) > booted_at:
        return False
    present = slots.look(runner, project)
    schedule_end(runner, project, present.idle, present.idle_release)
    return True


def contract_schema(runner: Runner, project: Project, live: str) -> str:
    """Apply the `post` migrations of the live slot; return the last line of `migrate`, if any."""
    head = database.migration_head(runner)
    known = releases.migrations_of(runner, project, live)
    is_known = head in {revision.identifier for revision in known}
    if not is_known or not migrations.pending(known, head):
        return ""
    migrated = runner.run(engine.migrate(live))
    return (migrated.out.strip().splitlines() or [""])[-1]
