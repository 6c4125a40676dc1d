"""Ends the rollback window: stops the slot that served before, and applies what only contracts the schema."""

import os
import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import hooks, ledger, observation, slots
from stack.parts.lock import exclusive
from stack.rules import migrations
from stack.runner import Runner

LOCK_SECONDS = 900
POLL_SECONDS = 5.0


def later(runner: Runner, project: Project, slot: str, release: str) -> None:
    """Have the slot retired when the rollback window is over, by a process that outlives this one."""
    window = project.setting("ROLLBACK_WINDOW_SECONDS")
    entry = str(len(ledger.entries(project)))
    argv = [
        sys.executable,
        "-m",
        "stack",
        "retire",
        slot,
        release,
        "--after",
        window,
        "--entry",
        entry,
    ]
    runner.start(
        ["env", f"PYTHONPATH={project.root / 'scripts'}", *argv], project.state / "retire.log"
    )


def resume(runner: Runner, project: Project, booted_at: datetime) -> bool:
    """Have the idle slot retired after all, where a reboot ended the process that waited; say whether it had."""
    past = [
        entry
        for entry in ledger.entries(project)
        if entry.get("action") in {"deploy", "rollback", "retire"}
    ]
    is_due = bool(past) and past[-1]["action"] != "retire" and past[-1].get("result") == "done"
    if not is_due or datetime.fromisoformat(str(past[-1]["at"])) > booted_at:
        return False
    found = slots.look(runner, project)
    later(runner, project, found.idle, found.idle_release)
    return True


def run(
    runner: Runner, project: Project, slot: str, release: str, *, after_seconds: float, entry: int
) -> None:
    """Wait, then retire the slot, unless another deploy or rollback has begun since the ledger's entry."""
    deadline = runner.clock() + after_seconds
    while runner.clock() < deadline:
        runner.sleep(min(POLL_SECONDS, deadline - runner.clock()))
        if ledger.has_begun_since(project, entry):
            runner.say(f"slot {slot} is left alone: something else was done since")
            return
    with exclusive(runner, project, "retire", LOCK_SECONDS):
        found = slots.look(runner, project)
        if (
            ledger.has_begun_since(project, entry)
            or found.live == slot
            or found.idle_release != release
        ):
            runner.say(f"slot {slot} is left alone: something else was done since")
            return
        slots.stop(runner, engine.slot_services(slot))
        try:
            applied = contract(runner, project, found.live)
        except Failure as failure:
            facts = {"slot": slot, "release": release, "to": found.live_release, "result": "failed"}
            ledger.record(runner, project, "retire", **facts, reason=failure.observation)
            hooks.notify(
                runner, project, to=found.live_release, result="failed", reason=failure.observation
            )
            raise
        facts = {
            "slot": slot,
            "release": release,
            "applied": applied,
            "result": "done",
            "to": found.live_release,
        }
        ledger.record(runner, project, "retire", **facts, pid=os.getpid())


def contract(runner: Runner, project: Project, live: str) -> str:
    """Apply the `post` migrations of the live release; return what was done, empty where there was nothing."""
    label = runner.read(
        engine.label_argv(f"{project.image}:{live}", "slipway.migrations")
    ).out.strip()
    head = observation.sql(runner, "select version_num from alembic_version").out.strip()
    known = migrations.parse_label(label)
    if (
        not head
        or head not in {revision.identifier for revision in known}
        or not migrations.pending(known, head)
    ):
        return ""
    done = runner.run(engine.migrate_argv(), env={"MIGRATE_TAG": live, "MIGRATE_CONFIRM": "yes"})
    return (done.out.strip().splitlines() or [""])[-1]


COMMAND = "retire"
HELP = "end the rollback window; deploy and rollback start this themselves"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the process that waits for the end of the window takes."""
    parser.add_argument("slot", choices=observation.SLOTS)
    parser.add_argument("release")
    parser.add_argument("--after", type=float, default=0, metavar="SECONDS")
    parser.add_argument(
        "--entry",
        type=int,
        required=True,
        metavar="N",
        help="entries in the ledger when the process was started",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run the process that waits for the end of the window."""
    slot, release, after = arguments.slot, arguments.release, arguments.after
    run(runner, load(root), slot, release, after_seconds=after, entry=arguments.entry)
    return 0
