"""Removes images of old releases and old build cache; never a placed release, the rollback target, or another's."""

from stack.config.project import Project
from stack.parts import ledger, observation
from stack.runner import Runner

CACHE_HOURS = 168


def removable(tags: list[str], good: list[str], placed: list[str], keep: int) -> list[str]:
    """Return which tags, given newest first, can go: not placed, not among the newest, not among the last good."""
    releases = [tag for tag in tags if tag not in observation.SLOTS]
    kept = {*placed, *releases[:keep], *good[: max(keep, 2)]}
    return [tag for tag in releases if tag not in kept]


def prune(runner: Runner, project: Project) -> list[str]:
    """Remove what can go, and return the releases that went. A failure here never fails what was done."""
    listing = runner.read(["docker", "images", "--format", "{{.Tag}}", project.image])
    tags = [tag for tag in listing.out.split() if tag != "<none>"]
    placed = [observation.slot_release(runner, project, slot) for slot in observation.SLOTS]
    keep = project.keep_releases
    gone = removable(tags, ledger.good_releases(project), placed, keep)
    # check=False: an image that a stopped container still uses is kept by the engine, and goes the next time.
    for tag in gone:
        runner.run(["docker", "rmi", f"{project.image}:{tag}"], check=False)
    ours = "label=org.opencontainers.image.title=slipway"
    runner.run(["docker", "image", "prune", "--force", "--filter", ours], check=False)
    runner.run(
        ["docker", "builder", "prune", "--force", "--filter", f"until={CACHE_HOURS}h"], check=False
    )
    return gone
