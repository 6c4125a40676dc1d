"""The story of `deploy.sh --plan`: the changes that a deploy of the checkout makes; only reads."""

from stack.commands import engine
from stack.config.project import Project
from stack.parts import (
    applied,
    database,
    edge,
    edge_settings,
    given_image,
    images,
    observation,
    preflight,
    slot_files,
    slots,
    sources,
)
from stack.rules import migrations
from stack.runner import Runner


def run(runner: Runner, project: Project, image: str = "") -> None:
    """Print how a deploy of the checkout, or of an image, would change the live deployment.

    If the image is not on this host, its release is unknown until a deploy pulls it.
    """
    present = slots.look(runner, project)
    is_here = bool(image) and images.has_image(runner, image)
    left_out: tuple[str, ...] = ()
    if image:
        release = given_image.name_of(runner, project, image) if is_here else f"that of {image}"
        state = "here; its registry is asked for a newer one" if is_here else "to be pulled"
    else:
        with sources.copied(runner, project.root) as copy:
            release, left_out = images.release_of(runner, project, copy), copy.left_out
            is_built = images.is_built(runner, project, copy)
        state = "here already" if is_built else "to be built"
    runner.say(
        f"release        {present.live_release or 'none'} -> {release}, in slot {present.idle}"
    )
    for path in left_out:
        runner.say(f"left out       {path}, because git or .dockerignore ignores it")
    _say_migrations(runner, project, image, is_known=not image or is_here)
    for line in changed_settings(project, present.live):
        runner.say(f"setting        {line}")
    for finding in preflight.judge(runner, project, preflight.DEPLOY):
        runner.say(str(finding))
    for line in applied.describe_waiting(runner, project):
        runner.say(line)
    nginx = "as it is" if edge.is_current(project) else "installed and reloaded, without stopping"
    for key in edge_settings.waiting(project):
        runner.say(f"setting        {key} changed, by a reload of nginx")
    runner.say(f"nginx          {nginx}")
    runner.say(f"image          {state}")
    runner.say(observation.what_serves(runner, project))


def _say_migrations(runner: Runner, project: Project, image: str, *, is_known: bool) -> None:
    if not is_known:
        runner.say(f"migration      not known before {image} is pulled")
        return
    head = database.migration_head(runner)
    own = migrations.revisions(project.root)
    if image:
        label = observation.ask_engine(runner, engine.image_label(image, "slipway.migrations"))
        own = migrations.parse_label(label)
    waiting = migrations.pending(own, head)
    for revision in waiting:
        when = (
            "before the switch" if revision.phase == "pre" else "at the end of the rollback window"
        )
        runner.say(
            f"migration      {revision.identifier} {revision.name} ({revision.phase}: {when})"
        )
    if not waiting:
        runner.say(f"migration      none, the database is at {head}")


def changed_settings(project: Project, slot: str) -> list[str]:
    """Return the service's keys that differ from the deployment in a slot, without values."""
    file = slot_files.path_of(project, slot)
    if not file.exists():
        return [f"unknown: {file} does not exist"]
    names = applied.waiting_for_deploy(project, slot)
    return [f"{name} changed" for name in names] or ["none changed"]
