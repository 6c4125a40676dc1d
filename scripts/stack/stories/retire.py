"""The story of the end of the rollback window: stops the old slot and applies `post`."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project, load
from stack.parts import hooks, ledger, observation, slots, window
from stack.parts.lock import exclusive
from stack.parts.steps import as_failure
from stack.runner import Runner
from stack.waiting import wait_until

LOCK_SECONDS = 900
POLL_SECONDS = 5.0
RUNBOOK = "migration-failed"


def run(
    runner: Runner, project: Project, slot: str, release: str, *, after_seconds: float, entry: int
) -> None:
    """Wait, then retire the slot, unless something has ended the window since the entry."""

    def has_ended() -> bool:
        return ledger.has_window_ended(project, entry)

    left_alone = f"slot {slot} is left alone: a deploy, a rollback or retire has ended its window"
    if after_seconds > 0 and wait_until(
        runner, has_ended, after_seconds, pause_seconds=POLL_SECONDS
    ):
        runner.say(left_alone)
        return
    with exclusive(runner, project, "retire", LOCK_SECONDS):
        present = slots.look(runner, project)
        if has_ended() or present.live == slot or present.idle_release != release:
            runner.say(left_alone)
            return
        slots.stop(runner, engine.slot_services(slot))
        facts = {"slot": slot, "release": release, "to": present.live_release}
        try:
            applied = window.contract_schema(runner, project, present.live)
        except Exception as stopped:
            failure = as_failure(stopped, RUNBOOK)
            outcome = {"result": "failed", "reason": failure.observation}
            ledger.record(runner, project, "retire", **facts, **outcome)
            hooks.notify(runner, project, to=present.live_release, **outcome)
            raise failure from None
        facts |= {"applied": applied, "result": "done"}
        ledger.record(runner, project, "retire", **facts, pid=os.getpid())


COMMAND = "retire"
HELP = "end the rollback window; deploy and rollback start this themselves"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the waiting process."""
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
    run(
        runner,
        load(root, is_lenient=True),
        slot,
        release,
        after_seconds=after,
        entry=arguments.entry,
    )
    return 0
