"""Resolves an image that a person names instead of a build; its content decides its release."""

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import images, observation
from stack.runner import Runner

RUNBOOK = "deploy-failed-before-the-switch"
PULL_SECONDS = 600


def resolve(runner: Runner, project: Project, reference: str) -> str:
    """Pull an image, give it the tag of its release, and return that release.

    A registry may have moved the tag since the last pull. If a different image already has the
    release's name, the first digits of the image's id are appended to the name.

    Raises:
        Failure: if the image is neither in its registry nor here, or has no release in its label.
    """
    _pull(runner, reference)
    release = label_of(runner, reference)
    if not release and not runner.is_dry:
        raise Failure(
            f"{reference} names no release in its label {engine.RELEASE_LABEL}",
            hints=["build it from this repository's Dockerfile"],
            runbook=RUNBOOK,
        )
    release = name_of(runner, project, reference)
    identity = observation.ask_engine(runner, engine.inspect_image(reference)) or reference
    runner.run(engine.tag_image(identity, f"{project.image}:{release}"))
    return release


def label_of(runner: Runner, reference: str) -> str:
    """Return the release in the label of a local image, or an empty text."""
    return observation.ask_engine(runner, engine.image_label(reference, engine.RELEASE_LABEL))


def name_of(runner: Runner, project: Project, reference: str) -> str:
    """Return the name that a local image has, or would get, as a release of this stack."""
    release = label_of(runner, reference)
    own = observation.ask_engine(runner, engine.inspect_image(reference))
    namesake = observation.ask_engine(runner, engine.inspect_image(f"{project.image}:{release}"))
    if namesake and namesake != own:
        return f"{release}-{own.removeprefix('sha256:')[:8]}"
    return release


def _pull(runner: Runner, reference: str) -> None:
    if reference.startswith("sha256:"):
        return  # an id, which no registry knows
    command = engine.pull_image(reference, timeout_seconds=PULL_SECONDS, may_fail=True)
    pulled = runner.run(command)
    if pulled.code == 0:
        return
    reason = (pulled.err.strip().splitlines() or [f"exit {pulled.code}"])[-1]
    if images.has_image(runner, reference):
        runner.say(f"    {reference} is the image of this host; its registry gave none: {reason}")
        return
    raise Failure(
        f"{reference} is neither here nor to be had from its registry: {reason}",
        hints=["docker login HOST, if the registry asks for it", "compare the spelling"],
        runbook=RUNBOOK,
    )
