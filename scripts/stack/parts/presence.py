"""Checks whether a stack exists and can take a deploy; changes nothing."""

from stack.commands import engine
from stack.config.project import Project
from stack.parts import observation
from stack.runner import Runner


def _has_engine(runner: Runner) -> bool:
    return runner.read(engine.ENGINE_VERSION).code == 0


def is_first(runner: Runner, project: Project) -> bool:
    """Whether no slot has a release; if the engine is stopped, assume that a stack exists."""
    return _has_engine(runner) and not any(
        observation.slot_release(runner, project, slot) for slot in observation.SLOTS
    )


def is_up(runner: Runner, project: Project) -> bool:
    """Whether the services that a deploy needs are well.

    Raises:
        Failure: if Compose refuses `.env`: up.sh would choose the missing base images anew, and
            could replace a server by another kind.
    """
    if not _has_engine(runner) or is_first(runner, project):
        return False  # up.sh starts the engine, or prints why it cannot
    services = observation.services(runner, project)
    well = {service.name for service in services if service.is_well}
    return {"nginx", "postgres", "redis"} <= well
