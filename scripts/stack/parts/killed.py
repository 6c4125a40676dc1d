"""Settles what a killed deploy or rollback left; the caller holds the lock, so nothing runs it.

It stops a slot whose deploy never succeeded. Whether a live release is good, only a person or a
watch can decide.
"""

from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.parts import deployments, ledger, observation, slots
from stack.runner import Runner


def settle(runner: Runner, project: Project, live: str) -> list[str]:
    """Stop an idle slot that never became live; return a line for each thing that was left."""
    if project.is_development or runner.is_dry:
        return []
    return [*_stop_idle(runner, project, live), *_describe_live(runner, project, live)]


def _describe_live(runner: Runner, project: Project, live: str) -> list[str]:
    entry = _newest_attempt(project)
    if entry.get("result") != "begun":
        return []
    begun, release = ledger.deployment_of(entry), observation.slot_release(runner, project, live)
    if not deployments.is_same(deployments.in_slot(project, live, release), begun):
        return []
    return [
        f"{entry['action']} of {begun} was killed before its end: it is live, and NOT judged; "
        "go back by ./scripts/rollback.sh, or deploy again by ./scripts/deploy.sh"
    ]


def _newest_attempt(project: Project) -> dict[str, Any]:
    """Return the last entry of a deploy or rollback; one that was refused changed nothing."""
    attempts = [
        entry
        for entry in ledger.entries(project)
        if entry.get("action") in {"deploy", "rollback"} and entry.get("result") != ledger.NOT_BEGUN
    ]
    return attempts[-1] if attempts else {}


def _stop_idle(runner: Runner, project: Project, live: str) -> list[str]:
    """Stop the idle slot, unless its API was good once, as that of a rollback window was.

    The container decides, not the slot's file: a deploy that is killed early has written the file
    and left the container of the window.
    """
    idle = next(slot for slot in observation.SLOTS if slot != live)
    present = observation.services(runner, project)
    if not any(each.name == f"api-{idle}" and each.state == "running" for each in present):
        return []
    number = deployments.running_number(runner, idle)
    if number in {each.number for each in ledger.good_deployments(project)}:
        return []  # somebody rolled back to it, whatever its deploy was
    for deployment in ledger.deployments(project):
        if deployment.number == number and ledger.never_succeeded(project, deployment):
            slots.stop(runner, engine.slot_services(idle))
            return [f"slot {idle} was stopped: no deploy of {deployment} succeeded"]
    return []
