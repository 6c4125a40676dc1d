"""The story of `deploy.sh`: makes a release live; after a failure the former release is live."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load, refuse_development
from stack.failure import ROLLED_BACK, Failure
from stack.parts import (
    configuration,
    database,
    edge,
    hooks,
    images,
    judgement,
    ledger,
    observation,
    preflight,
    releases,
    slots,
    smoke,
    watch,
    window,
)
from stack.parts.lock import exclusive
from stack.parts.steps import Steps
from stack.parts.undo import Undo, beyond_undo
from stack.rules import migrations
from stack.rules.migrations import Revision
from stack.rules.verdict import NO_TRAFFIC
from stack.runner import Runner
from stack.stories import plan, up

BEFORE, AFTER = "deploy-failed-before-the-switch", "deploy-failed-after-the-switch"
UNDO_ORDER = (
    "nginx",  # a configuration that breaks the front door would also fail the switch back
    "switch",
    "workers",
    "evidence",
    "slot",
    "release",
    "record",
    "retention",
    "hook",
    "notification",
)
# If the switch back fails, the new slot may be serving: nothing of it is removed.
FINAL = ("evidence", "record", "retention", "hook", "notification")


@dataclass(frozen=True)
class Options:
    """The options of the command: an image instead of a build, and seconds to wait for the lock."""

    image: str = ""
    wait_lock_seconds: float = 0


def run(runner: Runner, root: Path, options: Options) -> None:
    """Deploy the checkout, or an image; on a host where nothing is live yet, run `up`."""
    refuse_development(configuration.planned_project(root))
    project = load(root) if (root / ".env").exists() else None
    if project is None or not _is_up(runner, project):
        is_first = project is None or not observation.slot_release(runner, project, "blue")
        up.run(runner, root)
        if is_first or runner.is_dry:
            return
        project = load(root)
    with exclusive(runner, project, "deploy", options.wait_lock_seconds):
        _Deploy(runner, project, options).run()


def _is_up(runner: Runner, project: Project) -> bool:
    services = observation.services(runner, project)
    well = {service.name for service in services if service.is_well}
    return {"nginx", "postgres", "redis"} <= well


class _Deploy:
    """One attempt: each step, next to the undo that the step makes necessary."""

    def __init__(self, runner: Runner, project: Project, options: Options) -> None:
        self.runner = runner
        self.project = project
        self.options = options
        self.steps = Steps(runner, runner.clock())
        self.undo = Undo(UNDO_ORDER, vital=frozenset({"switch"}), final=FINAL)
        self.before = slots.look(runner, project)
        self.slot = self.before.idle
        self.release = ""
        self.earlier = NO_TRAFFIC

    def run(self) -> None:
        with self.undo.on_failure(BEFORE):
            self.begin()
            self.check()
            self.build()
            self.place()
            self.migrate()
            self.start()
            self.smoke_test()
            self.update_nginx()
        with self.undo.on_failure(AFTER):
            self.switch()
            self.hand_over_jobs()
            self.watch()
        with beyond_undo(AFTER, self.explain_what_is_live):
            self.finish()

    @property
    def facts(self) -> dict[str, str]:
        """The facts for hooks and the notification."""
        return {
            "from": self.before.live_release,
            "to": self.release,
            "slot": self.slot,
            "url": self.project.url,
        }

    def begin(self) -> None:
        self.undo.push("evidence", self.keep_evidence)
        self.undo.push("record", self.record_failure)
        self.undo.push("hook", self.run_failure_hook)
        self.undo.push("notification", self.notify_failure)

    def check(self) -> None:
        with self.steps.step("preflight") as report:
            warnings = preflight.check(self.runner, self.project)
            report("; ".join(["nothing stands in the way", *warnings]))

    def build(self) -> None:
        hooks.run(self.runner, self.project, "pre-build", **self.facts)
        with self.steps.step("image") as report:
            self.release = self._pull_image() if self.options.image else self._build_image()
            live = f"live is {self.before.live_release} in slot {self.before.live}"
            report(f"release {self.release}; {live}")

    def _build_image(self) -> str:
        faults = migrations.lint(self.project.root)
        if faults:
            raise Failure(
                "; ".join(faults), hints=["correct the migrations"], runbook="migration-failed"
            )
        return images.build_release(self.runner, self.project)

    def _pull_image(self) -> str:
        runner, image = self.runner, self.options.image
        if not images.has_image(runner, image):
            runner.run(engine.pull_image(image))
        release = runner.read(engine.image_label(image, engine.RELEASE_LABEL)).out.strip()
        if not release and not runner.is_dry:
            raise Failure(
                f"{image} names no release in its label {engine.RELEASE_LABEL}",
                hints=["build it from this repository's Dockerfile"],
                runbook=BEFORE,
            )
        runner.run(engine.tag_image(image, f"{self.project.image}:{release}"))
        return release

    def place(self) -> None:
        runner, project = self.runner, self.project
        facts = {"from": self.before.live_release, "to": self.release}
        ledger.record(runner, project, "deploy", **facts, result="begun")
        with self.steps.step("settings") as report:
            self.undo.push("release", self.place_former_release)
            self.undo.push("retention", self.remove_old_releases)
            slots.place(runner, project, self.release, self.slot)
            report(judgement.accept_settings(runner, project, self.slot))

    def migrate(self) -> None:
        hooks.run(self.runner, self.project, "pre-migrate", **self.facts)
        with self.steps.step("migrate") as report:
            report(self._migrate())

    def _migrate(self) -> str:
        head, waiting = self._pending_migrations()
        if migrations.order_fault(waiting):
            # A `post` migration of the live release waits for the end of the rollback window, which
            # this deploy ends. Otherwise no process may apply it: a reboot ends the waiting
            # process, and after a failed deploy that process skips the slot.
            window.contract_schema(self.runner, self.project, self.before.live)
            head, waiting = self._pending_migrations()
        fault = migrations.order_fault(waiting)
        if fault:
            raise Failure(
                fault,
                hints=["first deploy the release whose last migration is this `post`"],
                runbook="migration-failed",
            )
        if not any(revision.phase == "pre" for revision in waiting):
            return f"nothing to do before the switch, the database is at {head}"
        migrated = self.runner.run(engine.migrate(self.release, is_pre_only=True, may_fail=True))
        if migrated.code != 0:
            raise Failure(
                f"migrate exited with {migrated.code}",
                hints=["the live release works with the migrations that were applied"],
                runbook="migration-failed",
                evidence=migrated.out + migrated.err,
            )
        return (migrated.out.strip().splitlines() or ["done"])[-1]

    def _pending_migrations(self) -> tuple[str, list[Revision]]:
        head = database.migration_head(self.runner)
        known = releases.migrations_of(self.runner, self.project, self.release)
        # An image of another version of these scripts has no list.
        return head, migrations.pending(known or migrations.revisions(self.project.root), head)

    def start(self) -> None:
        with self.steps.step("start") as report:
            self.undo.push("slot", self.remove_slot)
            slots.start(self.runner, self.project, f"api-{self.slot}", anew=True)
            report(f"slot {self.slot} is ready")

    def smoke_test(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("smoke test") as report:
            is_dry = runner.is_dry
            report("skipped" if is_dry else smoke.check(runner, project, self.slot, self.release))

    def update_nginx(self) -> None:
        runner, project = self.runner, self.project
        self.earlier = watch.recent_traffic(runner, self.before.live)
        hooks.run(runner, project, "pre-switch", **self.facts)
        if edge.is_current(project):
            return
        with self.steps.step("nginx configuration"):
            former = edge.installed_name(project)
            if former:
                self.undo.push("nginx", lambda _: self._restore_nginx(former))
            edge.install(runner, project)
            edge.reload(runner)

    def switch(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("switch") as report:
            self.undo.push("switch", self.switch_back)
            self.undo.push("workers", lambda _: self._start_former_worker(anew=False))
            self.undo.push("slot", self.stop_slot)
            slots.make_live(runner, self.slot)
            slots.wait_for_front_door(runner, project, self.release, self.slot)
            report(f"the front door answers with release {self.release} from slot {self.slot}")

    def hand_over_jobs(self) -> None:
        with self.steps.step("workers"):
            slots.start(self.runner, self.project, f"worker-{self.slot}")
            # `anew` replaces a draining worker: it is healthy until it exits, but fetches no jobs.
            self.undo.push("workers", lambda _: self._start_former_worker(anew=True))
            slots.drain_worker(self.runner, self.before.live)
        hooks.run(self.runner, self.project, "post-switch", **self.facts)

    def watch(self) -> None:
        with self.steps.step("watch") as report:
            reason, now = watch.watch_slot(self.runner, self.project, self.slot, self.earlier)
            if reason:
                raise Failure(
                    f"release {self.release} is worse than {self.before.live_release}: {reason}",
                    hints=[f"./scripts/logs.sh api-{self.slot} shows its errors"],
                    runbook=AFTER,
                )
            report(f"{now}; before the switch: {self.earlier}")

    def finish(self) -> None:
        runner, project = self.runner, self.project
        is_live = slots.look(runner, project).live == self.slot
        facts = {"from": self.before.live_release, "to": self.release, "slot": self.slot}
        facts |= {"migration_head": database.migration_head(runner), "result": "done"}
        ledger.keep_settings(runner, project, self.release)
        ledger.record(runner, project, "deploy", **facts, seconds=self.steps.seconds)
        window.schedule_end(runner, project, self.before.live, self.before.live_release)
        with self.steps.step("retention") as report:
            removed = releases.prune(runner, project)
            report(f"removed {', '.join(removed)}" if removed else "nothing to remove")
        hooks.run(runner, project, "post-deploy", **self.facts)
        hooks.notify(runner, project, **self.facts, result="done")
        seconds = f"{runner.clock() - self.steps.started:.1f} s"
        runner.say(
            "\nnothing was changed"
            if runner.is_dry
            else f"\ndeployed in {seconds}; back: ./scripts/rollback.sh"
        )
        runner.say(
            observation.what_serves(runner, project)
            if is_live or runner.is_dry
            else "live: changed"
        )

    def explain_what_is_live(self, failure: Failure) -> None:
        failure.observation = (
            f"release {self.release} is live, but a later step failed: {failure.observation}"
        )

    def switch_back(self, failure: Failure) -> None:
        live, release = self.before.live, self.before.live_release
        slots.make_live(self.runner, live)
        slots.wait_for_front_door(self.runner, self.project, release, live)
        failure.code = ROLLED_BACK

    def _start_former_worker(self, *, anew: bool) -> None:
        slots.start(self.runner, self.project, f"worker-{self.before.live}", anew=anew)

    def keep_evidence(self, failure: Failure) -> None:
        if not self.runner.is_dry:
            services = engine.slot_services(self.slot)
            folder = ledger.keep_evidence(self.runner, self.project, "deploy", services)
            failure.hints.append(f"logs and health records: {folder}")

    def remove_slot(self, _: Failure) -> None:
        slots.remove(self.runner, engine.slot_services(self.slot))

    def stop_slot(self, _: Failure) -> None:
        slots.stop(self.runner, engine.slot_services(self.slot))

    def place_former_release(self, _: Failure) -> None:
        """Give the idle slot its former release again, the target of a rollback."""
        if self.before.idle_release:
            slots.place(self.runner, self.project, self.before.idle_release, self.slot)

    def _restore_nginx(self, former: str) -> None:
        edge.make_current(self.runner, self.project, former)
        edge.reload(self.runner)

    def remove_old_releases(self, _: Failure) -> None:
        releases.prune(self.runner, self.project)

    def record_failure(self, failure: Failure) -> None:
        facts = {"from": self.before.live_release, "to": self.release, **ledger.outcome_of(failure)}
        ledger.record(self.runner, self.project, "deploy", **facts, seconds=self.steps.seconds)

    def run_failure_hook(self, failure: Failure) -> None:
        hooks.run(self.runner, self.project, "failed", **self.facts, reason=failure.observation)

    def notify_failure(self, failure: Failure) -> None:
        hooks.notify(self.runner, self.project, **self.facts, **ledger.outcome_of(failure))


COMMAND = "deploy"
HELP = "make a release of this checkout live"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `deploy.sh`."""
    parser.add_argument(
        "--plan", action="store_true", help="print what would change, and do nothing"
    )
    parser.add_argument(
        "--image",
        default="",
        metavar="REF",
        help="deploy this image instead of building the checkout",
    )
    command_line.add_dry_run(parser)
    command_line.add_wait_lock(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `deploy.sh`."""
    if arguments.plan:
        plan.run(runner, load(root))
    else:
        run(runner, root, Options(arguments.image, arguments.wait_lock))
    return 0
