"""The story of `rollback.sh`: back to a release that was good; a rename where its slot is warm, never a build."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config import environment
from stack.config.project import Project, load, refuse_development
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.parts import hooks, ledger, observation, slots, smoke
from stack.parts.lock import exclusive
from stack.parts.slots import Slots
from stack.parts.steps import STOPPED, Steps, as_failure
from stack.rules import migrations
from stack.runner import Runner
from stack.stories import retire

REFUSED = "rollback-refused"


def run(runner: Runner, root: Path, release: str, wait_lock_seconds: float) -> None:
    """Go back to a release, or to the newest good one before the live one.

    Raises:
        Failure: where there is no such release, its image is gone, or the schema is past it.
    """
    project = load(root)
    refuse_development(project)
    with exclusive(runner, project, "rollback", wait_lock_seconds):
        steps = Steps(runner, runner.clock())
        was = slots.look(runner, project)
        target = release or previous(runner, project, was)
        with steps.step("check") as done:
            _check(runner, project, was, target)
            done(f"from {was.live_release} in slot {was.live} to {target} in slot {was.idle}")
        facts = {"from": was.live_release, "to": target, "slot": was.idle}
        if not runner.is_dry:
            (root / ".env.before").unlink(
                missing_ok=True
            )  # of an earlier rollback: _stay must not take it for its own
        ledger.record(runner, project, "rollback", **facts, result="begun")
        try:
            _go_back(runner, project, steps, was, target)
        except STOPPED as stopped:
            failure = as_failure(stopped, "roll-back")
            _stay(runner, project, was, failure, facts)
            raise failure from None
        ledger.record(runner, project, "rollback", **facts, result="done", seconds=steps.seconds)
        retire.later(runner, project, was.live, was.live_release)
        hooks.notify(runner, project, **facts, url=project.url, result="rolled back")
        runner.say(f"\nrolled back in {runner.clock() - steps.started:.1f} s")
        runner.say(observation.what_serves(runner, project))


def previous(runner: Runner, project: Project, was: Slots) -> str:
    """Return the newest good release that is not live: by the ledger, or, without one, what is in the idle slot."""
    for release in ledger.good_releases(project):
        if release != was.live_release and _has_image(runner, project, release):
            return release
    if was.idle_release and was.idle_release != was.live_release:
        return was.idle_release
    raise Failure(
        f"there is no release to go back to from {was.live_release}",
        hints=[
            f"docker image ls {project.image} lists what is kept; name one: ./scripts/rollback.sh RELEASE"
        ],
        runbook=REFUSED,
    )


def _has_image(runner: Runner, project: Project, release: str) -> bool:
    return runner.read(engine.inspect_argv(f"{project.image}:{release}")).code == 0


def _check(runner: Runner, project: Project, was: Slots, target: str) -> None:
    if target == was.live_release:
        raise Failure(
            f"release {target} is live already",
            hints=["./scripts/status.sh --history"],
            runbook=REFUSED,
        )
    # Somebody may have removed the release's own name; what is placed in the slot is the same image.
    image = f"{project.image}:{was.idle if was.idle_release == target else target}"
    if runner.read(engine.inspect_argv(image)).code != 0:
        kept = runner.read(["docker", "images", "--format", "{{.Tag}}", project.image]).out.split()
        names = ", ".join(tag for tag in kept if tag not in observation.SLOTS)
        raise Failure(
            f"the image of release {target} is not here",
            hints=[f"kept are: {names}"],
            runbook=REFUSED,
        )
    label = '{{index .Config.Labels "slipway.migrations"}}|{{index .Config.Labels "slipway.migration_head"}}'
    newer, _, _ = (
        runner.read(engine.inspect_argv(f"{project.image}:{was.live}", label))
        .out.strip()
        .partition("|")
    )
    older, _, older_head = runner.read(engine.inspect_argv(image, label)).out.strip().partition("|")
    head = observation.sql(runner, "select version_num from alembic_version").out.strip()
    if head == older_head:
        return
    known = max(
        (migrations.parse_label(text) for text in (newer, older) if text), key=len, default=[]
    )
    if not known:
        raise Failure(
            f"the database is at {head}, and neither release says which migrations led there",
            hints=["deploy a release instead: ./scripts/deploy.sh"],
            runbook=REFUSED,
        )
    between = migrations.contracting_between(known, older_head, head)
    if between:
        names = ", ".join(revision.identifier for revision in between)
        raise Failure(
            f"the schema is past release {target}: {names} took away what it needs",
            hints=[
                "deploy a corrected release: ./scripts/deploy.sh",
                "or restore the database to a time before it",
            ],
            runbook=REFUSED,
        )


def _go_back(runner: Runner, project: Project, steps: Steps, was: Slots, target: str) -> None:
    ready = {service.name for service in observation.services(runner, project) if service.is_well}
    if was.idle_release != target or f"api-{was.idle}" not in ready:
        with steps.step("start"):
            _restore_configuration(runner, project, target)
            if _has_image(runner, project, target):
                slots.place(runner, project, target, was.idle)
            slots.start(runner, project, f"api-{was.idle}")
        with steps.step("smoke test") as done:
            done("skipped" if runner.is_dry else smoke.check(runner, project, was.idle, target))
    with steps.step("switch") as done:
        slots.make_live(runner, was.idle)
        slots.await_front_door(runner, project, target, was.idle)
        done(f"the front door answers with release {target} from slot {was.idle}")
    with steps.step("workers"):
        _restore_configuration(runner, project, target)
        # Anew: after a deploy it may still drain. It is healthy until it ends, and then nobody would take jobs.
        slots.start(runner, project, f"worker-{was.idle}", anew=True)
        slots.release_worker(runner, was.live)


def _restore_configuration(runner: Runner, project: Project, release: str) -> None:
    """Put back the values that the release was live with, and keep the present ones as `.env.before`.

    Keys that only one of both files has stay as they are: they belong to this version of the scripts.
    """
    snapshot, file = ledger.settings_of(project, release), project.root / ".env"
    if not snapshot.exists():
        return
    present = file.read_text(encoding="utf-8")
    keys = {line.key for line in environment.parse(present)}
    former = {
        line.key: line.value for line in environment.parse(snapshot.read_text(encoding="utf-8"))
    }
    restored = environment.with_values(
        present, {key: value for key, value in former.items() if key in keys}
    )
    if restored != present:
        runner.write(project.root / ".env.before", present, 0o600)
        runner.write(file, restored, 0o600)


def _stay(
    runner: Runner, project: Project, was: Slots, failure: Failure, facts: dict[str, str]
) -> None:
    """The way back failed: what was live stays live, or becomes live again, with its settings."""
    if runner.is_dry:
        return
    services = engine.slot_services(was.idle)
    result = "failed"
    try:
        if observation.live_slot(runner, project) != was.live:
            slots.make_live(runner, was.live)
            slots.await_front_door(runner, project, was.live_release, was.live)
            failure.code, result = ROLLED_BACK, "rolled back"
    except (Failure, OSError) as second:
        failure.code = NEEDS_A_PERSON
        failure.hints.append(f"staying failed too: {second}")
    tidying: list[Callable[[], None]] = [
        lambda: failure.hints.append(
            f"logs and health records: {ledger.keep_evidence(runner, project, 'rollback', services)}"
        ),
        lambda: _put_settings_back(runner, project),
        lambda: slots.start(runner, project, f"worker-{was.live}", anew=True),
        lambda: slots.remove(runner, services),
    ]
    if was.idle_release:
        tidying.append(lambda: slots.place(runner, project, was.idle_release, was.idle))
    reason = failure.observation
    tidying += [
        lambda: ledger.record(runner, project, "rollback", **facts, result=result, reason=reason),
        lambda: hooks.notify(
            runner, project, **facts, url=project.url, result=result, reason=reason
        ),
    ]
    for tidy in tidying:
        try:
            tidy()
        except (Failure, OSError) as second:
            failure.hints.append(f"tidying up failed too: {second}")


def _put_settings_back(runner: Runner, project: Project) -> None:
    before = project.root / ".env.before"
    if before.exists():
        runner.write(project.root / ".env", before.read_text(encoding="utf-8"), 0o600)


COMMAND = "rollback"
HELP = "go back to a release that was good"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `rollback.sh` takes."""
    parser.add_argument(
        "release",
        nargs="?",
        default="",
        metavar="RELEASE",
        help="default: the good release before the live one",
    )
    command_line.add_dry_run(parser)
    command_line.add_wait_lock(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `rollback.sh`."""
    run(runner, root, arguments.release, arguments.wait_lock)
    return 0
