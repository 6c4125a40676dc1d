"""The story of `deploy.sh`: makes a release live; after a failure the former release is live."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load, refuse_development
from stack.config.service import Request
from stack.failure import ROLLED_BACK, Failure
from stack.parts import (
    applied,
    configuration,
    counts,
    custody,
    database,
    deployments,
    edge,
    edge_settings,
    fingerprints,
    given_image,
    hooks,
    images,
    inventory,
    judgement,
    ledger,
    observation,
    preflight,
    presence,
    releases,
    schema,
    slots,
    smoke,
    sources,
    watch,
    window,
)
from stack.parts.ledger import Deployment
from stack.parts.lock import exclusive
from stack.parts.steps import Steps
from stack.parts.undo import Undo, beyond_undo
from stack.rules import migrations
from stack.rules.verdict import NO_TRAFFIC
from stack.runner import Runner
from stack.stories import plan, up

BEFORE, AFTER = "deploy-failed-before-the-switch", "deploy-failed-after-the-switch"
UNDO_ORDER = (
    "host",
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
    if project is None or not presence.is_up(runner, project):
        is_first = project is None or presence.is_first(runner, project)
        if is_first and options.image:
            up.run(runner, root, image=options.image)
        else:
            up.run(runner, root)
        if is_first or runner.is_dry:
            return
        project = load(root)
    with exclusive(runner, project, "deploy", options.wait_lock_seconds):
        custody.claim(runner, project)
        stock = inventory.look(runner)
        applied.follow_containers(runner, project, stock)
        edge_settings.adopt(runner, project, stock)
        deployments.adopt(runner, project, slots.look(runner, project))
        _Deploy(runner, project, options).run()


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
        self.is_checked = False
        self.deployment = Deployment(0, "")
        self.earlier = NO_TRAFFIC
        self.former_period = self.period = ""
        self.is_counted = False
        self.repeated: list[Request] = []
        self.outcome = watch.Outcome()

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
            self.take_host_over()
            self.record_success()
        with beyond_undo(AFTER, self.explain_what_is_live):
            self.finish()

    @property
    def facts(self) -> dict[str, str]:
        """The facts for hooks and the notification."""
        return {
            "from": self.before.live_release,
            "to": self.release,
            "slot": self.slot,
            "url": applied.front_door(self.project).url,
        }

    def begin(self) -> None:
        self.undo.push("evidence", self.keep_evidence)
        self.undo.push("record", self.record_failure)
        self.undo.push("hook", self.run_failure_hook)
        self.undo.push("notification", self.notify_failure)

    def check(self) -> None:
        with self.steps.step("preflight") as report:
            self.is_counted = self.project.watch_seconds > 0 and counts.check(self.runner)
            warnings = preflight.check(self.runner, self.project)
            fingerprints.keep(self.runner, self.project)
            report("; ".join(["nothing stands in the way", *warnings]))
        self.is_checked = True

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
        with sources.copied(self.runner, self.project.root) as copy:
            self.release = copy.release  # the ledger needs this name if the build fails
            return images.build_release(self.runner, self.project, copy)

    def _pull_image(self) -> str:
        return given_image.resolve(self.runner, self.project, self.options.image)

    def place(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("settings") as report:
            former = deployments.text_of(project, self.slot)
            self.undo.push("release", lambda _: self.place_former_release(former))
            self.undo.push("retention", self.remove_old_releases)
            self.deployment = deployments.begin(runner, project, self.release, self.slot)
            facts = {"from": self.before.live_release, "to": self.release}
            facts |= {"result": "begun", **self.deployment.facts}
            ledger.record(runner, project, "deploy", **facts)
            slots.place(runner, project, self.release, self.slot)
            if self.is_counted:
                self.former_period = watch.begin(runner, project, self.before.live, BEFORE)
            report(judgement.accept_settings(runner, project, self.slot))

    def migrate(self) -> None:
        hooks.run(self.runner, self.project, "pre-migrate", **self.facts)
        with self.steps.step("migrate") as report:
            report(schema.prepare(self.runner, self.project, self.release, self.before.live))

    def start(self) -> None:
        with self.steps.step("start") as report:
            self.undo.push("slot", self.remove_slot)
            slots.start(self.runner, self.project, f"api-{self.slot}", anew=True)
            report(f"slot {self.slot} is ready")

    def smoke_test(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("smoke test") as report:
            if runner.is_dry:
                report("skipped")
                return
            self.repeated = smoke.list_repeatable(runner, project, self.slot)
            answers = smoke.check(runner, project, self.slot, self.release)
            smoke.check_readiness(runner, project, self.slot, self.before.live)
            report(answers)

    def update_nginx(self) -> None:
        runner, project = self.runner, self.project
        locations = edge_settings.installed(project).locations
        if not runner.is_dry:
            locations = smoke.read_locations(runner, project, self.slot)
        if not edge.is_up_to_date(project, locations):
            with self.steps.step("nginx configuration"):
                way_back = edge.way_back(runner, project)
                self.undo.push("nginx", lambda _: way_back())
                edge.update(runner, project, locations)
        # Only after the reload, because the former configuration may be older than the counter.
        if self.is_counted:
            watch.check_sight(runner, project, self.before.live)
            self.earlier = watch.end_former(runner, self.former_period)
        hooks.run(runner, project, "pre-switch", **self.facts)

    def switch(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("switch") as report:
            self.undo.push("switch", self.switch_back)
            self.undo.push("workers", lambda _: self._start_former_worker(anew=False))
            self.undo.push("slot", self.stop_slot)
            slots.make_live(runner, self.slot)
            # Only now, because an error without a slot's answer counts against the live slot.
            if self.is_counted:
                self.period = watch.begin(runner, project, self.slot, AFTER)
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
            if self.project.watch_seconds == 0:
                report("none, because WATCH_SECONDS is 0")
                return
            runner, project = self.runner, self.project
            period, earlier = self.period, self.earlier
            self.outcome = watch.watch_slot(runner, project, period, earlier, self.repeated)
            if self.outcome.reason:
                former, reason = self.before.live_release, self.outcome.reason
                raise Failure(
                    f"release {self.release} is worse than {former}: {reason}",
                    hints=[f"./scripts/logs.sh api-{self.slot} shows its errors"],
                    runbook=AFTER,
                )
            report(self.outcome.text)

    def take_host_over(self) -> None:
        """Let nginx answer to a new SLIPWAY_HOST, which the live slot now accepts."""
        runner, project = self.runner, self.project
        former = edge_settings.installed(project)
        if runner.is_dry or former.host in {"", project.host}:
            return
        with self.steps.step("host name") as report:
            edge.apply(runner, project, former.with_host(project.host), self._await_own_release)
            self.undo.push("host", lambda _: edge.put_back(runner, project, former))
            report(f"nginx answers to {project.host} instead of {former.host}")

    def _await_own_release(self) -> None:
        slots.wait_for_front_door(self.runner, self.project, self.release, self.slot)

    def record_success(self) -> None:
        """Record the deploy; if that fails, the deploy is rolled back."""
        runner, project = self.runner, self.project
        facts: dict[str, Any] = {"from": self.before.live_release, "to": self.release}
        facts |= {
            "slot": self.slot,
            "migration_head": database.migration_head(runner),
            "result": "done",
        }
        facts |= {"nginx": edge.installed_name(project), **self.deployment.facts}
        facts |= {"nginx_settings": edge_settings.installed(project).settings}
        facts |= window.facts(project)
        ledger.record(runner, project, "deploy", **facts, seconds=self.steps.seconds)

    def finish(self) -> None:
        runner, project = self.runner, self.project
        is_live = slots.look(runner, project).live == self.slot
        window.schedule_end(runner, project, self.before.live, self.before.live_release)
        with self.steps.step("retention") as report:
            removed = releases.prune(runner, project)
            report(f"removed {', '.join(removed)}" if removed else "nothing to remove")
        hooks.run(runner, project, "post-deploy", **self.facts)
        hooks.notify(runner, project, **self.facts, result="done")
        seconds = runner.clock() - self.steps.started
        for line in applied.describe_waiting(runner, project):
            runner.say(line)
        if runner.is_dry:
            runner.say("\nnothing was changed")
        else:
            runner.say(f"\ndeployment {self.deployment.number}, of release {self.release}")
            runner.say(self.outcome.describe_end(self.slot, seconds))
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

    def place_former_release(self, former: str) -> None:
        """Give the idle slot its former deployment again, the target of a rollback."""
        if self.before.idle_release:
            slots.place(self.runner, self.project, self.before.idle_release, self.slot)
        if former != deployments.text_of(self.project, self.slot):
            deployments.write(self.runner, self.project, self.slot, former)

    def remove_old_releases(self, _: Failure) -> None:
        releases.prune(self.runner, self.project)

    def record_failure(self, failure: Failure) -> None:
        facts: dict[str, Any] = {"from": self.before.live_release}
        facts |= {"to": self.release or self.options.image, **ledger.outcome_of(failure)}
        facts |= self.deployment.facts if self.deployment.number else {}
        if not self.is_checked:
            facts["result"] = ledger.NOT_BEGUN
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
        plan.run(runner, load(root), arguments.image)
    else:
        run(runner, root, Options(arguments.image, arguments.wait_lock))
    return 0
