"""Places the release that `up.sh` starts in an empty slot: of the checkout, or of an image."""

from stack.commands import engine
from stack.config.project import Project
from stack.parts import (
    deployments,
    given_image,
    images,
    ledger,
    observation,
    slot_files,
    slots,
    sources,
)
from stack.parts.ledger import Deployment
from stack.parts.steps import Steps
from stack.rules import migrations
from stack.runner import Runner


def place(runner: Runner, project: Project, slot: str, image: str) -> tuple[str, str]:
    """Place a release in an empty slot; return its name, and a note if the checkout differs."""
    placed = observation.slot_release(runner, project, slot)
    if project.is_development:
        release = images.build_development(runner, project)
        settings = project.service_settings
        deployments.place(runner, project, Deployment(0, release), slot, settings)
    elif placed and placed != images.DEVELOPMENT:
        checkout = images.release_of_checkout(runner, project)
        deployments.settle(runner, project, slots.look(runner, project))
        deployments.follow_host(runner, project)
        return (
            placed,
            "" if checkout == placed else f"; the checkout, {checkout}, is not live",
        )
    else:
        if image:
            release = given_image.resolve(runner, project, image)
        else:
            with sources.copied(runner, project.root) as copy:
                release = images.build_release(runner, project, copy)
        if placed == images.DEVELOPMENT:
            # The development containers are healthy, so the start would not replace them.
            slots.remove(runner, engine.slot_services(slot))
        deployments.begin(runner, project, release, slot)
    slots.place(runner, project, release, slot)
    return release, ""


def record(runner: Runner, project: Project, steps: Steps, slot: str, release: str) -> None:
    """Record a release that no deploy made live; a developer's stack has no releases."""
    present = deployments.in_slot(project, slot, release)
    is_known = present.number and (ledger.last(project) or {}).get("to") == release
    if project.is_development or is_known:
        return
    number = slot_files.number_of(slot_files.of_slot(project, slot))
    settings = deployments.fingerprint(project.service_settings)
    deployment = present if present.number else Deployment(number, release, settings)
    head = migrations.head(project.root)
    facts = {"from": None, "to": release, "slot": slot, "migration_head": head, "result": "done"}
    ledger.record(runner, project, "up", **facts, **deployment.facts, seconds=steps.seconds)


def describe_checkout(runner: Runner, project: Project) -> str:
    """Return a line if the checkout is not live, for example because another clone deployed."""
    if project.is_development:
        return ""
    placed = observation.slot_release(runner, project, observation.live_slot(runner, project))
    checkout = images.release_of_checkout(runner, project)
    return (
        ""
        if checkout == placed
        else f"  make it live ./scripts/deploy.sh, the checkout is release {checkout}\n"
    )
