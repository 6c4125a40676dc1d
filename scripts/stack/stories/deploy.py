"""The story of `deploy.sh`: from a checkout or an image to a release that answers; a failure leaves the old one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load, refuse_development
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.parts import (
    configuration,
    edge,
    hooks,
    images,
    ledger,
    observation,
    preflight,
    retention,
    slots,
    smoke,
    watch,
)
from stack.parts.lock import exclusive
from stack.parts.slots import Slots
from stack.parts.steps import STOPPED, Steps, as_failure
from stack.rules import migrations
from stack.runner import Runner
from stack.stories import plan, retire, settings, up

HEAD = "select version_num from alembic_version"


@dataclass(frozen=True)
class Options:
    """What the command line says: an image instead of a build, and seconds to wait for the lock."""

    image: str = ""
    wait_lock_seconds: float = 0


def run(runner: Runner, root: Path, options: Options) -> None:
    """Deploy the checkout, or an image; on a host where nothing is live yet, bring everything up instead."""
    refuse_development(configuration.intended(root))
    if not (root / ".env").exists() or not _stands(runner, load(root)):
        is_first = not (root / ".env").exists() or not observation.slot_release(
            runner, load(root), "blue"
        )
        up.run(runner, root)
        if is_first or runner.is_dry:
            return
    project = load(root)
    with exclusive(runner, project, "deploy", options.wait_lock_seconds):
        _Deploy(runner, project, options).run()


def _stands(runner: Runner, project: Project) -> bool:
    well = {service.name for service in observation.services(runner, project) if service.is_well}
    return {"nginx", "postgres", "redis"} <= well


class _Deploy:
    """One attempt: what it found, what it changed, and how it takes that back."""

    def __init__(self, runner: Runner, project: Project, options: Options) -> None:
        self.runner = runner
        self.project = project
        self.options = options
        self.steps = Steps(runner, runner.clock())
        self.release = ""
        self.is_placed = self.is_started = False
        self.is_worker_told = False  # the old one, to take no new job
        self.former_nginx = ""  # set once a deploy has installed another configuration
        self.earlier = watch.Traffic(0, 0.0, 0.0)
        self.was: Slots = slots.look(runner, project)

    def run(self) -> None:
        try:
            self._before_the_switch()
        except STOPPED as stopped:
            failure = as_failure(stopped, "deploy-failed-before-the-switch")
            self._take_back(failure)
            raise failure from None
        try:
            self._switch()
        except STOPPED as stopped:
            failure = as_failure(stopped, "deploy-failed-after-the-switch")
            self._roll_back(failure)
            raise failure from None
        try:
            self._finish()
        except STOPPED as stopped:
            failure = as_failure(stopped, "deploy-failed-after-the-switch")
            failure.code = NEEDS_A_PERSON
            failure.observation = (
                f"release {self.release} is live, but what follows failed: {failure.observation}"
            )
            raise failure from None

    @property
    def idle(self) -> str:
        return self.was.idle

    @property
    def facts(self) -> dict[str, str]:
        """What hooks and the notification are told."""
        return {
            "from": self.was.live_release,
            "to": self.release,
            "slot": self.idle,
            "url": self.project.url,
        }

    def _before_the_switch(self) -> None:
        runner, project, step = self.runner, self.project, self.steps.step
        with step("preflight") as done:
            warnings = preflight.check(runner, project)
            done("; ".join(["nothing stands in the way", *warnings]))
        hooks.run(runner, project, "pre-build", **self.facts)
        with step("image") as done:
            self.release = self._image()
            done(f"release {self.release}; live is {self.was.live_release} in slot {self.was.live}")
        ledger.record(
            runner,
            project,
            "deploy",
            **{"from": self.was.live_release},
            to=self.release,
            result="begun",
        )
        with step("settings") as done:
            self.is_placed = True
            slots.place(runner, project, self.release, self.idle)
            done(settings.accept(runner, project, self.idle))
        hooks.run(runner, project, "pre-migrate", **self.facts)
        with step("migrate") as done:
            done(self._migrate())
        with step("start") as done:
            self.is_started = True
            slots.start(runner, project, f"api-{self.idle}", anew=True)
            done(f"slot {self.idle} is ready")
        with step("smoke test") as done:
            done(
                "skipped"
                if runner.is_dry
                else smoke.check(runner, project, self.idle, self.release)
            )
        self.earlier = watch.before(runner, self.was.live)
        hooks.run(runner, project, "pre-switch", **self.facts)
        if not edge.is_current(project):
            with step("nginx configuration"):
                self.former_nginx = edge.installed(project)
                edge.install(runner, project)
                edge.reload(runner)

    def _image(self) -> str:
        runner, project = self.runner, self.project
        if not self.options.image:
            faults = migrations.lint(project.root)
            if faults:
                raise Failure(
                    "; ".join(faults), hints=["correct the migrations"], runbook="migration-failed"
                )
            return images.build_release(runner, project)
        if runner.read(engine.inspect_argv(self.options.image)).code != 0:
            runner.run(engine.pull_argv(self.options.image))
        release = runner.read(
            engine.label_argv(self.options.image, "org.opencontainers.image.version")
        ).out.strip()
        if not release and not runner.is_dry:
            raise Failure(
                f"{self.options.image} carries no release in its label org.opencontainers.image.version",
                hints=["build it from this repository's Dockerfile"],
                runbook="deploy-failed-before-the-switch",
            )
        runner.run(engine.tag_argv(self.options.image, f"{project.image}:{release}"))
        return release

    def _migrate(self) -> str:
        runner, project = self.runner, self.project
        head = observation.sql(runner, HEAD).out.strip()
        label = runner.read(
            engine.label_argv(f"{project.image}:{self.release}", "slipway.migrations")
        ).out.strip()
        known = migrations.parse_label(label) if label else migrations.revisions(project.root)
        waiting = migrations.pending(known, head)
        if migrations.order_fault(waiting):
            # A `post` of the live release still waits, for the end of a window that this deploy ends. It may be the
            # only one to do so: a reboot ends the process that waits, and a failed deploy has it leave the slot alone.
            retire.contract(runner, project, self.was.live)
            head = observation.sql(runner, HEAD).out.strip()
            waiting = migrations.pending(known, head)
        fault = migrations.order_fault(waiting)
        if fault:
            raise Failure(
                fault,
                hints=["deploy the release that ends with the `post` first"],
                runbook="migration-failed",
            )
        if not any(revision.phase == "pre" for revision in waiting):
            return f"nothing to do before the switch, the database is at {head}"
        argv = engine.migrate_argv(is_pre_only=True)
        done = runner.run(
            argv, env={"MIGRATE_TAG": self.release, "MIGRATE_CONFIRM": "yes"}, check=False
        )
        if done.code != 0:
            raise Failure(
                f"migrate exited with {done.code}",
                hints=["the release that serves runs on what was applied"],
                runbook="migration-failed",
                evidence=done.out + done.err,
            )
        return (done.out.strip().splitlines() or ["done"])[-1]

    def _switch(self) -> None:
        runner, project = self.runner, self.project
        with self.steps.step("switch") as done:
            slots.make_live(runner, self.idle)
            slots.await_front_door(runner, project, self.release, self.idle)
            done(f"the front door answers with release {self.release} from slot {self.idle}")
        with self.steps.step("workers"):
            slots.start(runner, project, f"worker-{self.idle}")
            self.is_worker_told = True
            slots.release_worker(runner, self.was.live)
        hooks.run(runner, project, "post-switch", **self.facts)
        with self.steps.step("watch") as done:
            reason, now = watch.watch(runner, project, self.idle, self.earlier)
            if reason:
                raise Failure(
                    f"release {self.release} is worse than {self.was.live_release}: {reason}",
                    runbook="deploy-failed-after-the-switch",
                )
            done(f"{now}; before the switch: {self.earlier}")

    def _finish(self) -> None:
        runner, project = self.runner, self.project
        live = slots.look(runner, project)
        facts = {"from": self.was.live_release, "to": self.release, "slot": self.idle}
        head = observation.sql(runner, HEAD).out.strip()
        ledger.keep_settings(runner, project, self.release)
        ledger.record(
            runner,
            project,
            "deploy",
            **facts,
            migration_head=head,
            result="done",
            seconds=self.steps.seconds,
        )
        retire.later(runner, project, self.was.live, self.was.live_release)
        with self.steps.step("retention") as done:
            gone = retention.prune(runner, project)
            done(f"removed {', '.join(gone)}" if gone else "nothing to remove")
        hooks.run(runner, project, "post-deploy", **self.facts)
        hooks.notify(runner, project, **self.facts, result="done")
        took = f"{runner.clock() - self.steps.started:.1f} s"
        runner.say(
            "\nnothing was changed"
            if runner.is_dry
            else f"\ndeployed in {took}; back: ./scripts/rollback.sh"
        )
        runner.say(
            observation.what_serves(runner, project)
            if live.live == self.idle or runner.is_dry
            else "live: changed"
        )

    def _take_back(self, failure: Failure) -> None:
        """Nothing was switched: save what the new slot said, and remove it."""
        services = engine.slot_services(self.idle)
        self._try(failure, lambda: self._keep(failure, services))
        if self.is_started:
            self._try(failure, lambda: slots.remove(self.runner, services))
        if self.is_placed:
            self._try(failure, self._place_back)
        self._try(failure, self._restore_nginx)
        self._tell(failure, "failed")

    def _roll_back(self, failure: Failure) -> None:
        """The switch was made, or may have been: first back to the slot that served before, then tidy up."""
        runner, project = self.runner, self.project
        services = engine.slot_services(self.idle)
        try:
            slots.make_live(runner, self.was.live)
            slots.await_front_door(runner, project, self.was.live_release, self.was.live)
        except (Failure, OSError) as second:
            failure.code = NEEDS_A_PERSON
            failure.hints.append(f"going back failed too: {second}")
            self._try(failure, lambda: self._keep(failure, services))
            self._tell(failure, "failed")
            return
        failure.code = ROLLED_BACK
        # Anew where it drains already: it is healthy until it ends, and then nobody would take jobs.
        self._try(
            failure,
            lambda: slots.start(
                runner, project, f"worker-{self.was.live}", anew=self.is_worker_told
            ),
        )
        self._try(failure, lambda: self._keep(failure, services))
        self._try(failure, lambda: slots.stop(runner, services))
        self._try(failure, self._place_back)
        self._try(failure, self._restore_nginx)
        self._tell(failure, "rolled back")

    def _try(self, failure: Failure, action: Callable[[], None]) -> None:
        """Tidy up; what fails is told beside what failed first, and hides neither it nor its exit code."""
        try:
            action()
        except (Failure, OSError) as second:
            observed = second.observation if isinstance(second, Failure) else str(second)
            failure.hints.append(f"tidying up failed too: {observed}")

    def _place_back(self) -> None:
        """Give the idle slot its former release again: it is what a rollback would go to."""
        if self.was.idle_release:
            slots.place(self.runner, self.project, self.was.idle_release, self.idle)

    def _restore_nginx(self) -> None:
        if self.former_nginx:
            edge.point(self.runner, self.project, self.former_nginx)
            edge.reload(self.runner)

    def _prune(self) -> None:
        retention.prune(self.runner, self.project)

    def _keep(self, failure: Failure, services: list[str]) -> None:
        if not self.runner.is_dry:
            folder = ledger.keep_evidence(self.runner, self.project, "deploy", services)
            failure.hints.append(f"logs and health records: {folder}")

    def _tell(self, failure: Failure, result: str) -> None:
        runner, project = self.runner, self.project
        facts = {
            "from": self.was.live_release,
            "to": self.release,
            "result": result,
            "reason": failure.observation,
        }
        self._try(
            failure,
            lambda: ledger.record(runner, project, "deploy", **facts, seconds=self.steps.seconds),
        )
        if self.is_placed:
            self._try(failure, self._prune)
        self._try(
            failure,
            lambda: hooks.run(runner, project, "failed", **self.facts, reason=failure.observation),
        )
        told = {**self.facts, "result": result, "reason": failure.observation}
        self._try(failure, lambda: hooks.notify(runner, project, **told))


COMMAND = "deploy"
HELP = "make a release of this checkout live"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `deploy.sh` takes."""
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
