"""The story of `restore.sh`: the database as it was at a time, beside the present or in its place.

The restore container touches no directory but its own until the exchange.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, USAGE, Failure
from stack.parts import hooks, ledger, observation, restorer, services, slots
from stack.parts.lock import exclusive
from stack.parts.restorer import BESIDE, Request
from stack.parts.steps import Steps
from stack.parts.undo import Undo
from stack.runner import Result, Runner
from stack.stories import backup
from stack.waiting import wait_until

RUNBOOK = "restore-all"
BESIDE_SECONDS = 120
# Above every stop_grace_period: 60 s of Postgres and 40 s of the API, one after the other.
STOP_SECONDS = 180
START_SECONDS = 120
ARCHIVED_SECONDS = 60
# The first file of the new timeline: until the archive has it, another restore would begin the same
# timeline again.
ARCHIVED = "select archived_count > 0 from pg_stat_archiver"
COPY = """rows that are in the copy and not in the database go back in one line; for a TABLE:

  docker compose exec --no-TTY postgres-beside psql -qX -h /tmp -U postgres slipway \\
    -c 'copy TABLE to stdout' |
    docker compose exec --no-TTY postgres psql -X -h /tmp -U postgres slipway \\
    -v ON_ERROR_STOP=1 -1 \\
    -c 'create temporary table returned (like TABLE)' -c 'copy returned from stdin' \\
    -c 'insert into TABLE select * from returned on conflict do nothing'

look before: docker compose exec postgres-beside psql -h /tmp -U postgres slipway
remove it:   ./scripts/restore.sh --remove-beside"""

REPOSITORIES = {"local": 1, "offsite": 2}  # partner: LOCAL and OFFSITE in backup/pgbackrest.py
UNDO_ORDER = ("database", "record", "notification")


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        to: an ISO time in UTC, or empty for the end of the archive.
        label: the backup to begin with, or empty for the newest that fits.
        repository: one of REPOSITORIES.
        is_confirmed: `--yes`.
    """

    to: str = ""
    label: str = ""
    repository: int = 1
    is_confirmed: bool = False


def moment(text: str) -> str:
    """Return a time as ISO in UTC; a time without a zone is in UTC."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def facts(done: Result, runbook: str = RUNBOOK) -> dict[str, Any]:
    """Return what the restore container found.

    Raises:
        Failure: with its observation and hints.
    """
    if done.code == 0:
        for line in reversed(done.out.splitlines()):
            if line.startswith('{"result"'):
                return dict(json.loads(line)["result"])
    hints = [*backup.advised(done.err), "the database was not touched"]
    raise Failure(backup.observed("", done.err), hints=hints, runbook=runbook)


def show(runner: Runner, options: Options) -> None:
    """Print the backups and the times that can be restored."""
    listing = restorer.list_backups(runner, options.repository)
    facts(listing)
    lines = listing.out.splitlines()
    runner.say("\n".join(line for line in lines if not line.startswith('{"result"')))


def beside(runner: Runner, project: Project, options: Options) -> None:
    """Make a copy of the database as it was, in a service of its own; print how rows go back."""
    with exclusive(runner, project, "restore"):
        steps = Steps(runner, runner.clock())
        with steps.step("look") as report:
            present = facts(restorer.tidy(runner, project, RUNBOOK, BESIDE))
            if present.get("has_database"):
                raise Failure(
                    "there is a copy beside the database already",
                    hints=["./scripts/restore.sh --remove-beside removes it; nothing was touched"],
                    runbook="restore-rows",
                )
            report("; ".join(present.get("tidied", [])) or "nothing is beside the database")
        with steps.step("restore") as report:
            request = _request(options, BESIDE)
            restored = facts(restorer.make(runner, request, _form))
            facts(restorer.swap(runner, request.stamp, BESIDE))
            report(_describe(restored))
        with steps.step("start"):
            services.start(
                runner, project, "postgres-beside", seconds=BESIDE_SECONDS, runbook="restore-rows"
            )
        seconds = f"{runner.clock() - steps.started:.1f} s"
        runner.say(f"\nbeside the database, after {seconds}: {restored['text']}\n{COPY}")


def remove_beside(runner: Runner, project: Project) -> None:
    """Remove the copy beside the database, and what a killed restore left of one."""
    with exclusive(runner, project, "restore"):
        runner.run(
            engine.compose("--profile", "beside", "rm", "--stop", "--force", "postgres-beside")
        )
        volume = f"{project.name}_beside"
        if runner.read(engine.inspect_volume(volume)).code == 0:
            runner.run(engine.remove_volume(volume))


def replace(runner: Runner, project: Project, options: Options) -> None:
    """Put the database as it was into the place of the present one, which is kept."""
    with exclusive(runner, project, "restore"):
        steps = Steps(runner, runner.clock())
        with steps.step("look") as report:
            present = facts(restorer.tidy(runner, project, RUNBOOK))
            report("; ".join(present.get("tidied", [])) or "nothing is left of an earlier restore")
        time = options.to or "the end of the archive"
        runner.say(f"    the database of {project.name} becomes what it was at {time}")
        runner.say("    later writes are no longer in it; the directory of before is kept")
        confirm(project.name, options)
        request = _request(options)
        with steps.step("restore") as report:
            restored = facts(restorer.make(runner, request, _form))
            report(_describe(restored))
        has_old = bool(present.get("has_database"))
        _Replacement(runner, project, steps, request.stamp, restored, has_old=has_old).run()


def _request(options: Options, root: str = "") -> Request:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return Request(options.to, options.label, options.repository, root, stamp)


def _form(text: str) -> str:
    return "restored and checked" if text.startswith('{"result"') else text


def _describe(restored: dict[str, Any]) -> str:
    size = f"{restored['bytes'] / 1e6:.0f} MB"
    return f"{restored['text']}; {size} from the backup {restored['label']}"


def discard(runner: Runner, project: Project, options: Options) -> None:
    """Delete the databases that earlier restores kept."""
    with exclusive(runner, project, "restore"):
        old = facts(restorer.tidy(runner, project, RUNBOOK)).get("old", {})
        for name, size in old.items():
            runner.say(f"    {name}: {size / 1e6:.0f} MB")
        if not old:
            runner.say("no database of an earlier restore is kept")
            return
        confirm(project.name, options)
        facts(restorer.discard(runner, list(old)))
        runner.say(f"deleted: {', '.join(old)}")


def confirm(name: str, options: Options, answer: Callable[[], str] = sys.stdin.readline) -> None:
    """Have a person type the project's name, unless `--yes` was given.

    Raises:
        Failure: where the answer is another one, or nobody is there.
    """
    if options.is_confirmed:
        return
    sys.stdout.write(f"type the project's name, {name}, to go on: ")
    sys.stdout.flush()
    if answer().strip() != name:
        raise Failure(
            "not confirmed",
            hints=["nothing was changed; --yes confirms without asking"],
            code=USAGE,
        )


class _Replacement:
    """The exchange of the database for a restored one; everything that writes stops for it."""

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
        """The facts that the ledger and the notification get."""
        return {
            "from": self.release,
            "to": self.release,
            "slot": self.slot,
            "database": self.restored["text"],
            "backup": self.restored["label"],
        }

    def run(self) -> None:
        """Exchange the databases, start everything and ask the front door.

        Raises:
            Failure: with code 4 where the old database serves again, 5 where a person is needed.
        """
        runner, project, facts = self.runner, self.project, self.facts
        # Not "begun", which ends a rollback window; nor, in a failure, "rolled back", which marks
        # the release as a bad one (parts/ledger.py).
        ledger.record(runner, project, "restore", **facts, result="started")
        with self.undo.on_failure(RUNBOOK):
            self.stop_writers()
            self.exchange()
            self.start()
            self.ask_front_door()
        ledger.record(
            runner, project, "restore", **facts, result="done", seconds=self.steps.seconds
        )
        hooks.notify(runner, project, **facts, url=project.url, result="restored")
        _wait_for_archive(runner)
        seconds = f"{runner.clock() - self.steps.started:.1f} s"
        runner.say(f"\nrestored in {seconds}: {self.restored['text']}")
        if self.has_old:
            runner.say(
                "./scripts/restore.sh --discard-old deletes the database before, "
                "when you do not need it any more"
            )
        runner.say(observation.what_serves(runner, project))

    def stop_writers(self) -> None:
        with self.steps.step("stop what writes"):
            self.undo.push("record", self.record_failure)
            self.undo.push("notification", self.notify_failure)
            self.undo.push("database", self.put_database_back)
            self._stop()

    def _stop(self) -> None:
        """Stop the writers, then Postgres, which hands the rest of its WAL to the archive."""
        kinds = ("api-", "worker-", "backup")
        names = [service.name for service in observation.services(self.runner, self.project)]
        writers = [name for name in names if name.startswith(kinds)]
        for group in (writers, ["postgres"]):
            if group:
                words = ["--profile", "*", "stop", *group]
                self.runner.run(engine.compose(*words, timeout_seconds=STOP_SECONDS))

    def exchange(self) -> None:
        with self.steps.step("exchange") as report:
            facts(restorer.swap(self.runner, self.stamp))
            kept = f"the database before is kept as 17.before-{self.stamp}"
            report(kept if self.has_old else "there was none before")

    def start(self) -> None:
        """Start Postgres, bring its schema to the live release's, then start the rest."""
        with self.steps.step("start Postgres"):
            self._start("postgres")
        with self.steps.step("migrate") as report:
            migrated = self.runner.run(engine.migrate(self.slot, is_pre_only=True))
            report((migrated.out.strip().splitlines() or ["done"])[-1])
        self._start_rest()

    def _start(self, *names: str) -> None:
        services.start(self.runner, self.project, *names, seconds=START_SECONDS, runbook=RUNBOOK)

    def _start_rest(self) -> None:
        self._start("redis", "backup", *engine.slot_services(self.slot), "nginx")

    def ask_front_door(self) -> None:
        with self.steps.step("front door") as report:
            slots.wait_for_front_door(self.runner, self.project, self.release, self.slot)
            report(f"answers with release {self.release} from slot {self.slot}")

    def put_database_back(self, failure: Failure) -> None:
        """Start the old database again; where there was none, leave the new one for a person.

        The directories show whether the two were exchanged. A container whose answer was lost may
        have exchanged them, or may still be about to, until `tidy` has ended it.
        """
        present = facts(restorer.tidy(self.runner, self.project, RUNBOOK))
        if not self.has_old and present["has_database"]:
            failure.code = NEEDS_A_PERSON
            failure.hints.append(
                "there was no database before; the restored one is in its place: ./scripts/up.sh"
            )
            return
        if any(name.endswith(f".before-{self.stamp}") for name in present.get("old", {})):
            self._stop()
            facts(restorer.swap_back(self.runner, self.stamp))
            failure.code = ROLLED_BACK
        if self.has_old:
            self._start("postgres")
            self._start_rest()
            failure.hints.append(
                "the database from before serves again, and holds every row that it held"
            )

    def record_failure(self, failure: Failure) -> None:
        outcome = {"result": "failed", "reason": failure.observation}
        ledger.record(self.runner, self.project, "restore", **self.facts, **outcome)

    def notify_failure(self, failure: Failure) -> None:
        outcome = {"result": "failed", "reason": failure.observation}
        url = self.project.url
        hooks.notify(self.runner, self.project, **self.facts, url=url, **outcome)


def _wait_for_archive(runner: Runner) -> None:
    def is_archived() -> bool:
        return observation.sql(runner, ARCHIVED).out.strip() == "t"

    if not wait_until(runner, is_archived, ARCHIVED_SECONDS):
        runner.say(
            "(!) the restored database archives nothing yet: "
            "docs/runbook.md#archive-not-progressing"
        )
