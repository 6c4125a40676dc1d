"""The story of `rollback.sh`: makes a good earlier release live again; builds nothing."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from stack import command_line
from stack.commands import engine
from stack.config import environment
from stack.config.project import Project, load, refuse_development
from stack.failure import ROLLED_BACK, Failure
from stack.parts import (
    applied,
    custody,
    database,
    deployments,
    edge,
    edge_settings,
    hooks,
    ledger,
    observation,
    releases,
    slot_files,
    slots,
    smoke,
    window,
)
from stack.parts.deployments import REFUSED
from stack.parts.ledger import Deployment
from stack.parts.lock import exclusive
from stack.parts.slots import Slots
from stack.parts.steps import Steps
from stack.parts.undo import Undo, beyond_undo
from stack.rules import migrations
from stack.rules.migrations import Revision
from stack.runner import Runner

UNDO_ORDER = (
    "switch",
    "evidence",
    "settings",
    "worker",
    "slot",
    "release",
    "nginx",
    "record",
    "notification",
)
# If the switch back fails, the target may be the only slot that answers: it is not removed.
FINAL = ("evidence", "settings", "worker", "record", "notification")


def run(runner: Runner, root: Path, release: str, wait_lock_seconds: float) -> None:
    """Make a deployment live again: the named one, or the newest good one that is not live.

    A number names a deployment; the name of a release means its last good deployment.

    Raises:
        Failure: if there is no such release, its image is missing, or the schema is too new for it.
    """
    project = load(root, is_lenient=True)
    refuse_development(project)
    with exclusive(runner, project, "rollback", wait_lock_seconds):
        custody.claim(runner, project, is_starting=True)
        before = slots.look(runner, project)
        deployments.adopt(runner, project, before)
        target = (
            deployments.named(project, release)
            if release
            else deployments.before_live(runner, project, before)
        )
        rollback = _Rollback(runner, project, before, target)
        with rollback.steps.step("check") as report:
            _check(runner, project, before, target)
            live = f"{before.live_release} in slot {before.live}"
            report(f"from {live} to {target} in slot {before.idle}")
        rollback.run()


def _check(runner: Runner, project: Project, before: Slots, deployment: Deployment) -> None:
    target = deployment.release
    live = deployments.in_slot(project, before.live, before.live_release)
    if deployments.is_same(deployment, live):
        raise Failure(
            f"release {deployment} is live already",
            hints=["./scripts/status.sh --history"],
            runbook=REFUSED,
        )
    tag = deployments.tag_of(deployment, before)
    if not releases.has_image(runner, project, tag):
        tags = releases.list_tags(runner, project)
        names = ", ".join(name for name in tags if name not in observation.SLOTS)
        raise Failure(
            f"the image of release {target} is not here",
            hints=[f"these are kept: {names}"],
            runbook=REFUSED,
        )
    head = database.migration_head(runner)
    target_head = releases.migration_head_of(runner, project, tag)
    if head == target_head:
        return
    known = _read_migrations(runner, project, head, (before.live, tag))
    if not known:
        raise Failure(
            f"the database is at {head}, and neither release lists the migrations that led there",
            hints=["deploy a release instead: ./scripts/deploy.sh"],
            runbook=REFUSED,
        )
    between = migrations.list_contracting(known, target_head, head)
    if between:
        names = ", ".join(revision.identifier for revision in between)
        raise Failure(
            f"the schema is too new for release {target}: {names} removed a part that it needs",
            hints=[
                "deploy a corrected release: ./scripts/deploy.sh",
                "or restore the database to a time before it",
            ],
            runbook=REFUSED,
        )


def _read_migrations(
    runner: Runner, project: Project, head: str, tags: tuple[str, str]
) -> list[Revision]:
    """Return the longer list of the two images; if it lacks the head, the list of another image.

    A release that was rolled back, or never became live, may have applied `pre` migrations.
    """
    longer = max((releases.migrations_of(runner, project, tag) for tag in tags), key=len)
    if head in {revision.identifier for revision in longer}:
        return longer
    for tag in releases.list_tags(runner, project):
        other = releases.migrations_of(runner, project, tag)
        if head in {revision.identifier for revision in other}:
            return other
    return longer


class _Rollback:
    """One attempt: from the current slots to the target release, and its undo."""

    def __init__(
        self, runner: Runner, project: Project, before: Slots, deployment: Deployment
    ) -> None:
        self.runner = runner
        self.project = project
        self.before = before
        self.deployment = deployment
        self.target = deployment.release
        self.former_file = deployments.text_of(project, before.idle)
        self.steps = Steps(runner, runner.clock())
        self.undo = Undo(UNDO_ORDER, vital=frozenset({"switch"}), final=FINAL)

    @property
    def facts(self) -> dict[str, str]:
        """The facts for the ledger and the notification."""
        return {"from": self.before.live_release, "to": self.target, "slot": self.before.idle}

    @property
    def record(self) -> dict[str, Any]:
        """The facts for the ledger, with both deployments."""
        live = deployments.in_slot(self.project, self.before.live, self.before.live_release)
        return {**self.facts, **self.deployment.facts, "from_deployment": live.number}

    def run(self) -> None:
        runner, project, facts = self.runner, self.project, self.facts
        if not runner.is_dry:
            # An earlier rollback may have left this file, which the undo must not restore.
            (project.root / ".env.before").unlink(missing_ok=True)
        with self.undo.on_failure("roll-back"):
            self.begin()
            ledger.record(runner, project, "rollback", **self.record, result="begun")
            is_warm = self.is_warm()
            if not is_warm:
                self.start()
                self.smoke_test()
            self.warn_if_degraded(0 if is_warm else smoke.READINESS_SECONDS)
            self.render_locations()
            self.switch()
            self.hand_over_jobs()
            record = {**self.record, **window.facts(project), "seconds": self.steps.seconds}
            ledger.record(runner, project, "rollback", **record, result="done")
        with beyond_undo("roll-back", self.explain_what_is_live):
            window.schedule_end(runner, project, self.before.live, self.before.live_release)
            url = applied.front_door(project).url
            hooks.notify(runner, project, **facts, url=url, result="rolled back")
        runner.say(f"\nrolled back in {runner.clock() - self.steps.started:.1f} s")
        runner.say(observation.what_serves(runner, project))

    def explain_what_is_live(self, failure: Failure) -> None:
        failure.observation = (
            f"release {self.target} is live, but a later step failed: {failure.observation}"
        )

    def begin(self) -> None:
        """Push the undo that every failure needs: the former slot serves with its settings."""
        if self.runner.is_dry:
            return
        self.undo.push("switch", self.switch_back)
        self.undo.push("evidence", self.keep_evidence)
        self.undo.push("settings", self.put_settings_back)
        self.undo.push("worker", self.start_former_worker)
        self.undo.push("slot", self.remove_slot)
        if self.before.idle_release:
            self.undo.push("release", self.place_former_release)
        self.undo.push("record", self.record_failure)
        self.undo.push("notification", self.notify_failure)

    def is_warm(self) -> bool:
        """Whether the target's API is ready in the idle slot and accepts the present host."""
        slot, project = self.before.idle, self.project
        services = observation.services(self.runner, project)
        well = {service.name for service in services if service.is_well}
        placed = deployments.in_slot(project, slot, self.before.idle_release)
        values, door = slot_files.of_slot(project, slot), applied.front_door(project)
        hosts = values.get(slot_files.HOSTS, door.host).split(",")
        is_placed = deployments.is_same(placed, self.deployment) and door.host in hosts
        if self.deployment.number:
            # A deploy that was killed before its first entry may have written the file, and the
            # worker would get that deploy's settings.
            is_placed = is_placed and slot_files.number_of(values) == self.deployment.number
        if not is_placed or f"api-{slot}" not in well:
            return False
        # The file may be newer than the container: a deploy may be killed before it replaces the
        # container.
        if deployments.runs_another(self.runner, slot, self.deployment):
            return False
        if not deployments.knows_host(self.runner, door, slot):
            return False
        # A healthy container may not be ready, for example after a restart with another secret.
        return smoke.probe(self.runner, project, slot, smoke.READINESS).status == 200

    def start(self) -> None:
        runner, project, slot = self.runner, self.project, self.before.idle
        with self.steps.step("start"):
            self.restore_settings()
            if releases.has_image(runner, project, self.target):
                slots.place(runner, project, self.target, slot)
            settings = deployments.settings_of(project, self.deployment)
            settings = settings or load(project.root, is_lenient=True).service_settings
            deployments.place(runner, project, self.deployment, slot, settings)
            slots.start(runner, project, f"api-{slot}")

    def smoke_test(self) -> None:
        runner, slot = self.runner, self.before.idle
        with self.steps.step("smoke test") as report:
            is_dry = runner.is_dry
            report("skipped" if is_dry else smoke.check(runner, self.project, slot, self.target))

    def warn_if_degraded(self, seconds: float) -> None:
        """Print a warning only: in an incident, a degraded target may be the better release."""
        slot, live = self.before.idle, self.before.live
        fault = smoke.compare_readiness(self.runner, self.project, slot, live, seconds)
        if fault:
            self.runner.say(f"    warning: {fault}")

    def render_locations(self) -> None:
        """Give nginx the locations of the deployment; its other files and keys do not change."""
        runner, project, slot = self.runner, self.project, self.before.idle
        former = edge_settings.installed(project)
        if runner.is_dry or not former.settings:
            return  # nginx of an earlier version reads no such file
        locations = smoke.read_locations(runner, project, slot)
        if locations != former.locations:
            with self.steps.step("nginx locations"):
                self.undo.push("nginx", lambda _: edge.put_back(runner, project, former))
                edge.apply(runner, project, replace(former, locations=locations))

    def switch(self) -> None:
        runner, slot = self.runner, self.before.idle
        with self.steps.step("switch") as report:
            slots.make_live(runner, slot)
            slots.wait_for_front_door(runner, self.project, self.target, slot)
            report(f"the front door answers with release {self.target} from slot {slot}")

    def hand_over_jobs(self) -> None:
        with self.steps.step("workers"):
            self.restore_settings()
            # `anew`: after a deploy this worker may still drain. It is healthy until it exits, and
            # then no worker would fetch jobs.
            slots.start(self.runner, self.project, f"worker-{self.before.idle}", anew=True)
            slots.drain_worker(self.runner, self.before.live)

    def restore_settings(self) -> None:
        """Restore the service's keys of the deployment; `.env.before` keeps the current file.

        The keys of nginx, of the data, of backups and of the scripts do not change.
        """
        file = self.project.root / ".env"
        present = file.read_text(encoding="utf-8")
        written = {line.key: line.value for line in environment.parse(present)}
        now = slot_files.settings_in(written)
        # Do not write the values that a compose file or the process environment forces: the
        # operator did not write them into `.env`.
        forced = Project(self.project.root, written).service_settings
        effective = self.project.service_settings
        then = deployments.settings_of(self.project, self.deployment)
        changed = {
            key: value
            for key, value in then.items()
            if value not in {now[key], forced[key], effective[key]}
        }
        restored = environment.with_values(present, changed)
        if restored != present:
            for key, value in changed.items():
                self.runner.say(f"    {key}: {now[key] or 'empty'} -> {value or 'empty'}")
            self.runner.write(self.project.root / ".env.before", present, 0o600)
            self.runner.write(file, restored, 0o600)

    def switch_back(self, failure: Failure) -> None:
        """Make the former slot live again, if the other slot is live."""
        live, release = self.before.live, self.before.live_release
        if observation.live_slot(self.runner, self.project) != live:
            slots.make_live(self.runner, live)
            slots.wait_for_front_door(self.runner, self.project, release, live)
            failure.code = ROLLED_BACK

    def keep_evidence(self, failure: Failure) -> None:
        services = engine.slot_services(self.before.idle)
        folder = ledger.keep_evidence(self.runner, self.project, "rollback", services)
        failure.hints.append(f"logs and health records: {folder}")

    def put_settings_back(self, _: Failure) -> None:
        former = self.project.root / ".env.before"
        if former.exists():
            text = former.read_text(encoding="utf-8")
            self.runner.write(self.project.root / ".env", text, 0o600)

    def start_former_worker(self, _: Failure) -> None:
        # `anew`: the worker may be draining, or running with the settings of the target.
        slots.start(self.runner, self.project, f"worker-{self.before.live}", anew=True)

    def remove_slot(self, _: Failure) -> None:
        slots.remove(self.runner, engine.slot_services(self.before.idle))

    def place_former_release(self, _: Failure) -> None:
        slots.place(self.runner, self.project, self.before.idle_release, self.before.idle)
        if self.former_file != deployments.text_of(self.project, self.before.idle):
            deployments.write(self.runner, self.project, self.before.idle, self.former_file)

    def record_failure(self, failure: Failure) -> None:
        facts = {**self.record, **ledger.outcome_of(failure)}
        ledger.record(self.runner, self.project, "rollback", **facts)

    def notify_failure(self, failure: Failure) -> None:
        url = applied.front_door(self.project).url
        facts = {**self.facts, "url": url, **ledger.outcome_of(failure)}
        hooks.notify(self.runner, self.project, **facts)


COMMAND = "rollback"
HELP = "make an earlier good release live again"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `rollback.sh`."""
    parser.add_argument(
        "release",
        nargs="?",
        default="",
        metavar="DEPLOYMENT",
        help="the number of a deployment, or a release for its last good one; "
        "default: the good deployment before the live one",
    )
    command_line.add_dry_run(parser)
    command_line.add_wait_lock(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `rollback.sh`."""
    run(runner, root, arguments.release, arguments.wait_lock)
    return 0
