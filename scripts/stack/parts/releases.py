"""The releases on this host: their images, their migrations, and the rollback targets."""

from stack.commands import engine
from stack.config.project import Project
from stack.parts import images, ledger, observation
from stack.rules import migrations
from stack.rules.migrations import Revision
from stack.rules.releases import removable
from stack.runner import Runner


def has_image(runner: Runner, project: Project, tag: str) -> bool:
    """Whether the image of a release, or of a slot, is on this host."""
    return images.has_image(runner, f"{project.image}:{tag}")


def list_tags(runner: Runner, project: Project) -> list[str]:
    """Return the tags of the application's images, the newest first, slots included."""
    listing = runner.read(engine.image_tags(project.image))
    return [tag for tag in listing.out.split() if tag != "<none>"]


def _label(runner: Runner, project: Project, tag: str, label: str) -> str:
    return observation.ask_engine(runner, engine.image_label(f"{project.image}:{tag}", label))


def migrations_of(runner: Runner, project: Project, tag: str) -> list[Revision]:
    """Return the migrations in the image of a release or of a slot.

    An image without the label, from an older version of these scripts, has none.
    """
    return migrations.parse_label(_label(runner, project, tag, "slipway.migrations"))


def migration_head_of(runner: Runner, project: Project, tag: str) -> str:
    """Return the migration head of a release, or an empty text."""
    return _label(runner, project, tag, "slipway.migration_head")


def prune(runner: Runner, project: Project) -> list[str]:
    """Remove old releases and this project's unnamed images; return the names of the releases.

    The build cache stays: the engine does not know which project uses it, and limits its size. The
    commands may fail: a failed prune must not fail the deploy, and a later run removes an image
    that a stopped container still uses.
    """
    placed = [observation.slot_release(runner, project, slot) for slot in observation.SLOTS]
    keep = project.keep_releases
    good = ledger.good_releases(project)
    old = removable(list_tags(runner, project), good, placed, keep)
    for release in old:
        runner.run(engine.remove_image(f"{project.image}:{release}"))
    runner.run(engine.prune_images(f"{engine.REPOSITORY_LABEL}={project.image}"))
    return old
