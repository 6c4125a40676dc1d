"""The story of `deploy.sh --plan`: the changes that a deploy of the checkout makes; only reads."""

from stack.config import environment
from stack.config.project import Project
from stack.parts import database, edge, images, ledger, observation, releases, slots
from stack.rules import migrations
from stack.runner import Runner


def run(runner: Runner, project: Project) -> None:
    """Print the differences between the live release and the checkout."""
    present = slots.look(runner, project)
    release, _ = images.release_name(runner, project.root)
    runner.say(
        f"release        {present.live_release or 'none'} -> {release}, in slot {present.idle}"
    )
    head = database.migration_head(runner)
    waiting = migrations.pending(migrations.revisions(project.root), head)
    for revision in waiting:
        when = (
            "before the switch" if revision.phase == "pre" else "at the end of the rollback window"
        )
        runner.say(
            f"migration      {revision.identifier} {revision.name} ({revision.phase}: {when})"
        )
    if not waiting:
        runner.say(f"migration      none, the database is at {head}")
    for line in changed_settings(project, present.live_release):
        runner.say(f"setting        {line}")
    nginx = "as it is" if edge.is_current(project) else "installed and reloaded, without stopping"
    runner.say(f"nginx          {nginx}")
    is_built = releases.has_image(runner, project, release)
    runner.say(f"image          {'here already' if is_built else 'to be built'}")
    runner.say(observation.what_serves(runner, project))


def changed_settings(project: Project, live_release: str) -> list[str]:
    """Return the keys of `.env` that changed since the live release was deployed; no value."""
    snapshot = ledger.settings_of(project, live_release)
    if not snapshot.exists():
        return [f"unknown: {snapshot} does not exist"]
    former = {
        line.key: line.value for line in environment.parse(snapshot.read_text(encoding="utf-8"))
    }
    text = (project.root / ".env").read_text(encoding="utf-8")
    present = {line.key: line.value for line in environment.parse(text)}
    lines = [f"{key} added" for key in present if key not in former]
    lines += [f"{key} removed" for key in former if key not in present]
    lines += [f"{key} changed" for key in present if key in former and present[key] != former[key]]
    return lines or ["none changed"]
