"""The releases on this host: their images, their migrations, and which may be live again."""

from stack.commands import engine
from stack.config.project import Project
from stack.parts import images, ledger, observation
from stack.rules import migrations
from stack.rules.migrations import Revision
from stack.rules.releases import removable
from stack.runner import Runner

CACHE_HOURS = 168
OWN_IMAGES = "org.opencontainers.image.title=slipway"


def has_image(runner: Runner, project: Project, tag: str) -> bool:
    """Whether the image of a release, or of a slot, is on this host."""
    return images.has_image(runner, f"{project.image}:{tag}")


def list_tags(runner: Runner, project: Project) -> list[str]:
    """Return the tags of the application's images, the newest first, slots included."""
    listing = runner.read(engine.image_tags(project.image))
    return [tag for tag in listing.out.split() if tag != "<none>"]


def _label(runner: Runner, project: Project, tag: str, label: str) -> str:
    return runner.read(engine.image_label(f"{project.image}:{tag}", label)).out.strip()


def migrations_of(runner: Runner, project: Project, tag: str) -> list[Revision]:
    """Return the migrations that a release, or the release of a slot, was built with.

    An image without the label, from an older version of these scripts, has none.
    """
    return migrations.parse_label(_label(runner, project, tag, "slipway.migrations"))


def migration_head_of(runner: Runner, project: Project, tag: str) -> str:
    """Return the migration that a release was written for, or an empty text."""
    return _label(runner, project, tag, "slipway.migration_head")


def prune(runner: Runner, project: Project) -> list[str]:
    """Remove old releases and old build cache; return the releases.

    The commands may fail: a prune never fails the deploy before it, and an image that a stopped
    container still uses goes the next time.
    """
    placed = [observation.slot_release(runner, project, slot) for slot in observation.SLOTS]
    keep = project.keep_releases
    good = ledger.good_releases(project)
    old = removable(list_tags(runner, project), good, placed, keep)
    for release in old:
        runner.run(engine.remove_image(f"{project.image}:{release}"))
    runner.run(engine.prune_images(OWN_IMAGES))
    runner.run(engine.prune_build_cache(CACHE_HOURS))
    return old
