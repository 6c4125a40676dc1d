"""The exchange of the database for a restored one: what writes is stopped, and comes back with either of the two."""

from dataclasses import dataclass
from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.parts import hooks, ledger, observation, services, slots
from stack.parts.steps import STOPPED, Steps, as_failure
from stack.runner import Runner
from stack.stories import restore

RUNBOOK = "restore-all"
STOP_SECONDS = (
    180  # above every stop_grace_period: 60 s of Postgres and 40 s of the API, one after the other
)
START_SECONDS = 120
ARCHIVED_SECONDS = 60
# The first file of the new timeline: until it is in the archive, another restore would begin the same one again.
ARCHIVED = "select archived_count > 0 from pg_stat_archiver"


@dataclass(frozen=True)
class New:
    """A restored database that is ready: its time's name, what is known of it, and whether there is one before it."""

    stamp: str
    made: dict[str, Any]
    has_old: bool


def take_over(runner: Runner, project: Project, steps: Steps, new: New) -> None:
    """Exchange the databases, start everything and ask the front door; where that fails, go back.

    Raises:
        Failure: with code 4 where the old database serves again, 5 where a person is needed.
    """
    slot = observation.live_slot(runner, project)
    release = observation.slot_release(runner, project, slot)
    noted = {
        "from": release,
        "to": release,
        "slot": slot,
        "database": new.made["text"],
        "backup": new.made["label"],
    }
    # Not "begun", which ends a rollback window; nor, below, "rolled back", which spoils a release (parts/ledger.py).
    ledger.record(runner, project, "restore", **noted, result="started")
    try:
        with steps.step("stop what writes"):
            _stop(runner, project)
        with steps.step("exchange") as done:
            restore.facts(restore.ask(runner, "swap", f"--stamp={new.stamp}"))
            done(
                f"the database before is kept as 17.before-{new.stamp}"
                if new.has_old
                else "there was none before"
            )
        _start(runner, project, steps, slot)
        with steps.step("front door") as done:
            slots.await_front_door(runner, project, release, slot)
            done(f"answers with release {release} from slot {slot}")
    except STOPPED as stopped:
        failure = as_failure(stopped, RUNBOOK)
        _go_back(runner, project, new, slot, failure)
        ledger.record(
            runner, project, "restore", **noted, result="failed", reason=failure.observation
        )
        hooks.notify(
            runner, project, **noted, url=project.url, result="failed", reason=failure.observation
        )
        raise failure from None
    ledger.record(runner, project, "restore", **noted, result="done", seconds=steps.seconds)
    hooks.notify(runner, project, **noted, url=project.url, result="restored")
    _await_archive(runner)
    runner.say(f"\nrestored in {runner.clock() - steps.started:.1f} s: {new.made['text']}")
    if new.has_old:
        runner.say(
            "./scripts/restore.sh --discard-old deletes the database before, when you do not need it any more"
        )
    runner.say(observation.what_serves(runner, project))


def _stop(runner: Runner, project: Project) -> None:
    """Stop the writers, then Postgres, which hands the rest of its WAL to the archive before it ends."""
    kinds = ("api-", "worker-", "backup")
    writers = [
        one.name for one in observation.services(runner, project) if one.name.startswith(kinds)
    ]
    for names in (writers, ["postgres"]):
        if names:
            runner.run(engine.compose_argv("--profile", "*", "stop", *names), timeout=STOP_SECONDS)


def _start(runner: Runner, project: Project, steps: Steps | None, slot: str) -> None:
    """Start Postgres, bring its schema to the live release's, then start the rest."""

    def start(*names: str) -> None:
        services.start(runner, project, *names, seconds=START_SECONDS, runbook=RUNBOOK)

    if steps is None:
        start("postgres")
    else:
        with steps.step("start Postgres"):
            start("postgres")
        with steps.step("migrate") as done:
            migrated = runner.run(
                engine.migrate_argv(is_pre_only=True),
                env={"MIGRATE_TAG": slot, "MIGRATE_CONFIRM": "yes"},
            )
            done((migrated.out.strip().splitlines() or ["done"])[-1])
    start("redis", "backup", *engine.slot_services(slot), "nginx")


def _go_back(runner: Runner, project: Project, new: New, slot: str, failure: Failure) -> None:
    """Start the old database again; where there was none, the restored one stays for a person to look at.

    The directories say whether the two were exchanged: a container whose answer was lost may have done it, or may still
    be about to, until `look` has ended it.
    """
    try:
        found = restore.look(runner, project)
        if not new.has_old and found["has_database"]:
            failure.code = NEEDS_A_PERSON
            failure.hints.append(
                "there was no database before; the restored one is in its place: ./scripts/up.sh"
            )
            return
        if any(name.endswith(f".before-{new.stamp}") for name in found.get("old", {})):
            _stop(runner, project)
            restore.facts(restore.ask(runner, "swap-back", f"--stamp={new.stamp}"))
            failure.code = ROLLED_BACK
        if new.has_old:
            _start(runner, project, None, slot)
            failure.hints.append(
                "the database from before serves again, and holds every row that it held"
            )
    except (Failure, OSError) as second:
        failure.code = NEEDS_A_PERSON
        failure.hints.append(f"going back failed too: {second}")


def _await_archive(runner: Runner) -> None:
    deadline = runner.clock() + ARCHIVED_SECONDS
    while observation.sql(runner, ARCHIVED).out.strip() != "t":
        if runner.clock() > deadline:
            runner.say(
                "(!) the restored database archives nothing yet: docs/runbook.md#archive-not-progressing"
            )
            return
        runner.sleep(0.2)
