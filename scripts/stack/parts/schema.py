"""Prepares the database's schema for a release: applies its `pre` migrations before the switch."""

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import database, releases, window
from stack.rules import migrations
from stack.rules.migrations import Revision
from stack.runner import Runner

RUNBOOK = "migration-failed"


def prepare(runner: Runner, project: Project, release: str, live: str) -> str:
    """Apply the `pre` migrations of a release; return the last line of `migrate`.

    Args:
        live: the live slot, whose `post` migrations may have to be applied first.

    Raises:
        Failure: if the order of the migrations is wrong, or one of them fails.
    """
    head, waiting = _pending(runner, project, release)
    if migrations.order_fault(waiting):
        # A `post` migration of the live release waits for the end of the rollback window, which
        # this deploy ends. Otherwise no process may apply it: a reboot ends the waiting process,
        # and after a failed deploy that process skips the slot.
        window.contract_schema(runner, project, live)
        head, waiting = _pending(runner, project, release)
    fault = migrations.order_fault(waiting)
    if fault:
        raise Failure(
            fault,
            hints=["first deploy the release whose last migration is this `post`"],
            runbook=RUNBOOK,
        )
    if not any(revision.phase == "pre" for revision in waiting):
        return f"nothing to do before the switch, the database is at {head}"
    migrated = runner.run(engine.migrate(release, is_pre_only=True, may_fail=True))
    if migrated.code != 0:
        raise Failure(
            f"migrate exited with {migrated.code}",
            hints=["the live release works with the migrations that were applied"],
            runbook=RUNBOOK,
            evidence=migrated.out + migrated.err,
        )
    return (migrated.out.strip().splitlines() or ["done"])[-1]


def _pending(runner: Runner, project: Project, release: str) -> tuple[str, list[Revision]]:
    head = database.migration_head(runner)
    known = releases.migrations_of(runner, project, release)
    # An image of another version of these scripts has no list.
    return head, migrations.pending(known or migrations.revisions(project.root), head)
