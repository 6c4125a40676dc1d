"""Replaces the database with a restored database; all writers are stopped meanwhile."""

from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.parts import (
    applied,
    fingerprints,
    hooks,
    ledger,
    observation,
    restorer,
    services,
    slots,
)
from stack.parts.restorer import RUNBOOK, read_facts
from stack.parts.steps import Steps
from stack.parts.undo import Undo, beyond_undo
from stack.runner import Runner
from stack.waiting import wait_until

# Above every stop_grace_period: 60 s of Postgres and 40 s of the API, one after the other.
STOP_SECONDS = 180
START_SECONDS = 120
ARCHIVED_SECONDS = 60
# Until the first file of the new timeline is archived, another restore would start the same
# timeline again.
ARCHIVED = "select archived_count > 0 from pg_stat_archiver"
UNDO_ORDER = ("database", "record", "notification")


class Exchange:
    """One exchange: its steps, and the undo that restores the old database."""

    def __init__(
        self,
        runner: Runner,
        project: Project,
        steps: Steps,
        stamp: str,
        restored: dict[str, Any],
        *,
        has_old: bool,
    ) -> None:
        self.runner = runner
        self.project = project
        self.steps = steps
        self.stamp = stamp
        self.restored = restored
        self.has_old = has_old
        self.slot = observation.live_slot(runner, project)
        self.release = observation.slot_release(runner, project, self.slot)
        self.undo = Undo(UNDO_ORDER, vital=frozenset({"database"}), final=UNDO_ORDER)

    @property
    def facts(self) -> dict[str, str]:
        """The facts for the ledger and the notification."""
        return {
            "from": self.release,
            "to": self.release,
            "slot": self.slot,
            "database": self.restored["text"],
            "backup": self.restored["label"],
        }

    def run(self) -> None:
        """Exchange the databases, start everything and check the front door.

        Raises:
            Failure: with code 4 if the old database serves again, 5 if a person is needed.
        """
        runner, project, facts = self.runner, self.project, self.facts
        # The result "begun" would end a rollback window. After a failure, "rolled back" would mark
        # the release as bad (parts/ledger.py).
        ledger.record(runner, project, "restore", **facts, result="started")
        with self.undo.on_failure(RUNBOOK):
            self.stop_writers()
            self.exchange()
            self.start()
            self.ask_front_door()
        with beyond_undo(RUNBOOK, _explain_what_serves):
            seconds_of = self.steps.seconds
            ledger.record(runner, project, "restore", **facts, result="done", seconds=seconds_of)
            url = applied.front_door(project).url
            hooks.notify(runner, project, **facts, url=url, result="restored")
            _wait_for_archive(runner)
            fingerprints.keep(runner, project)  # on a new host, the secrets have opened their data
        seconds = f"{runner.clock() - self.steps.started:.1f} s"
        runner.say(f"\nrestored in {seconds}: {self.restored['text']}")
        if self.has_old:
            runner.say(
                "./scripts/restore.sh --discard-old deletes the former database, "
                "when you no longer need it"
            )
        runner.say(observation.what_serves(runner, project))

    def stop_writers(self) -> None:
        with self.steps.step("stop the writers"):
            self.undo.push("record", self.record_failure)
            self.undo.push("notification", self.notify_failure)
            self.undo.push("database", self.put_database_back)
            self._stop()

    def _stop(self) -> None:
        """Stop the writers, then Postgres, which archives the rest of its WAL first."""
        kinds = ("api-", "worker-", "backup")
        names = [service.name for service in observation.services(self.runner, self.project)]
        writers = [name for name in names if name.startswith(kinds)]
        for group in (writers, ["postgres"]):
            if group:
                words = ["--profile", "*", "stop", *group]
                self.runner.run(engine.compose(*words, timeout_seconds=STOP_SECONDS))

    def exchange(self) -> None:
        with self.steps.step("exchange") as report:
            read_facts(restorer.swap(self.runner, self.stamp))
            kept = f"the former database is kept as 17.before-{self.stamp}"
            report(kept if self.has_old else "there was none before")

    def start(self) -> None:
        """Start Postgres, migrate it to the live release's schema, then start the rest."""
        with self.steps.step("start Postgres"):
            self._start("postgres")
        with self.steps.step("migrate") as report:
            migrated = self.runner.run(engine.migrate(self.slot, is_pre_only=True))
            report((migrated.out.strip().splitlines() or ["done"])[-1])
        self._start_rest()

    def _start(self, *names: str) -> None:
        runner, project = self.runner, self.project
        services.start(runner, project, *names, seconds=START_SECONDS, runbook=RUNBOOK)
        applied.keep(runner, project, [name for name in names if name in applied.SERVICES])

    def _start_rest(self) -> None:
        # These were not stopped. If they serve, leave them out: Compose would replace them if a
        # setting waits.
        names = [name for name in applied.SERVICES if name not in {"postgres", "backup"}]
        left = services.list_missing(self.runner, self.project, names)
        self._start("backup", *engine.slot_services(self.slot), *left)

    def ask_front_door(self) -> None:
        with self.steps.step("front door") as report:
            slots.wait_for_front_door(self.runner, self.project, self.release, self.slot)
            report(f"answers with release {self.release} from slot {self.slot}")

    def put_database_back(self, failure: Failure) -> None:
        """Start the old database again; if there was none, leave the new database for a person.

        The directories show whether the databases were exchanged. If the container's answer was
        lost, it may still exchange them until `tidy` has stopped it.
        """
        present = read_facts(restorer.tidy(self.runner, self.project, RUNBOOK))
        if not self.has_old and present["has_database"]:
            failure.code = NEEDS_A_PERSON
            failure.hints.append(
                "there was no database before; the restored one is in its place: ./scripts/up.sh"
            )
            return
        if any(name.endswith(f".before-{self.stamp}") for name in present.get("old", {})):
            self._stop()
            read_facts(restorer.swap_back(self.runner, self.stamp))
            failure.code = ROLLED_BACK
        if self.has_old:
            self._start("postgres")
            self._start_rest()
            failure.hints.append("the former database serves again, with every row that it had")

    def record_failure(self, failure: Failure) -> None:
        outcome = {"result": "failed", "reason": failure.observation}
        ledger.record(self.runner, self.project, "restore", **self.facts, **outcome)

    def notify_failure(self, failure: Failure) -> None:
        outcome = {"result": "failed", "reason": failure.observation}
        url = applied.front_door(self.project).url
        hooks.notify(self.runner, self.project, **self.facts, url=url, **outcome)


def _explain_what_serves(failure: Failure) -> None:
    failure.observation = (
        f"the restored database serves, but a later step failed: {failure.observation}"
    )


def _wait_for_archive(runner: Runner) -> None:
    def is_archived() -> bool:
        return observation.sql(runner, ARCHIVED).out.strip() == "t"

    if not wait_until(runner, is_archived, ARCHIVED_SECONDS):
        runner.say(
            "(!) the restored database archives nothing yet: "
            "docs/runbook.md#archive-not-progressing"
        )
