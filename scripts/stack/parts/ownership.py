"""The owner record of STATE_DIR: which checkout, project and machine the stack belongs to."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import machine
from stack.parts.inventory import Container, Inventory
from stack.rules import ownership
from stack.rules.ownership import Facts, Owner, Verdict
from stack.runner import Runner

RUNBOOK = "another-checkout-owns-the-stack"
# Each checkout has this file, and the engine never creates it in place of a missing mount.
MARK = "compose.yaml"
# A restore and an upgrade stop these services, besides the slots, and start them again.
RESTARTED = ("postgres", "backup")
# The services with data are replaced with some seconds of 503, the live slot without any.
RENEWAL = "./scripts/up.sh --apply all, then ./scripts/deploy.sh"


def owner_file(project: Project) -> Path:
    """Return the file of the record."""
    return project.state / "owner.json"


def read(project: Project) -> Owner | None:
    """Return the record; None if there is none, or it cannot be read."""
    try:
        facts = json.loads(owner_file(project).read_text(encoding="utf-8"))
        return Owner(str(facts["checkout"]), str(facts["project"]), str(facts["machine"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def present(project: Project) -> Owner:
    """Return the owner that this command would record."""
    return Owner(str(project.root.resolve()), project.name, machine.read_id())


def judge(project: Project, inventory: Inventory, *, is_adopting: bool = False) -> Verdict:
    """Compare the record and the containers with this checkout, this project and this machine."""
    return ownership.judge(_facts(project, inventory), is_adopting=is_adopting)


def _facts(project: Project, inventory: Inventory) -> Facts:
    owner, running = read(project), inventory.running(project.name)
    named = [owner.checkout if owner else "", *(each.checkout for each in running)]
    others: dict[str, list[str]] = {
        checkout: []
        for checkout in dict.fromkeys(named)
        if checkout and _is_other(checkout, project.root)
    }
    for container in running:
        if container.checkout in others:
            others[container.checkout].append(container.service)
    former = {owner.project} if owner else _former_projects(project, inventory)
    volumes = {name: inventory.volumes_of(name) for name in former - {project.name}}
    return Facts(
        owner,
        present(project),
        others,
        {name: names for name, names in volumes.items() if names},
    )


def _former_projects(project: Project, inventory: Inventory) -> set[str]:
    """Return the projects of this checkout's containers, if there is a ledger but no record."""
    if not project.ledger.exists():
        return set()
    checkouts = {each.checkout for each in inventory.containers if each.checkout}
    root = project.root.resolve()
    own = {checkout for checkout in checkouts if _resolved(checkout) == root}
    return {each.project for each in inventory.containers if each.checkout in own}


def _resolved(checkout: str) -> Path:
    return Path(checkout).resolve()


def _is_other(checkout: str, root: Path) -> bool:
    """Whether another checkout exists at this path; a link to this checkout does not count."""
    if _resolved(checkout) == root.resolve():
        return False
    try:
        return (Path(checkout) / MARK).is_file() and not os.path.samefile(checkout, root)
    except PermissionError:
        return True  # closed to this user, so it exists


def refuse_others(project: Project, inventory: Inventory, *, is_adopting: bool = False) -> str:
    """Return a note if this checkout takes the stack over; empty if the stack is its own.

    Raises:
        Failure: before any effect, if another checkout, project or machine owns the stack.
    """
    verdict = judge(project, inventory, is_adopting=is_adopting)
    if verdict.faults:
        raise Failure(
            "; ".join(verdict.faults),
            hints=["nothing was touched", *dict.fromkeys(verdict.hints)],
            runbook=RUNBOOK,
        )
    return verdict.note


def keep(runner: Runner, project: Project) -> None:
    """Write the record if it differs; if this machine's id is unknown, the recorded id stays."""
    former, owner = read(project), present(project)
    if former and not owner.machine:
        owner = replace(owner, machine=former.machine)
    if owner != former:
        runner.make_directory(project.state, 0o750)
        runner.write(owner_file(project), json.dumps(asdict(owner)) + "\n", 0o640)


def list_stale(project: Project, inventory: Inventory) -> list[Container]:
    """Return the containers of the project that mount files of another directory.

    Compose does not replace a container if only the paths of its secrets changed: its next restart
    would fail.
    """
    root = project.root.resolve()
    mine = [each for each in inventory.containers if each.project == project.name and each.checkout]
    stale = {
        checkout for checkout in {each.checkout for each in mine} if _resolved(checkout) != root
    }
    return [each for each in mine if each.checkout in stale]


def refuse_stale(project: Project, inventory: Inventory, slot: str) -> None:
    """Refuse to stop containers that could not start again, after the checkout was moved.

    The commands that ask this start the database, the backups and the live slot again. They do not
    stop the other services, and the idle slot stays stopped.

    Raises:
        Failure: naming them.
    """
    restarted = {*RESTARTED, *engine.slot_services(slot)}
    running = [each for each in list_stale(project, inventory) if each.is_running]
    stale = [each for each in running if each.service in restarted]
    if stale:
        names = ", ".join(each.service for each in stale)
        raise Failure(
            f"{names} mount files of {stale[0].checkout} and could not start again",
            hints=["nothing was touched", RENEWAL],
            runbook=RUNBOOK,
        )


def remove_stale(
    runner: Runner, project: Project, inventory: Inventory, slot: str, *, is_all: bool
) -> None:
    """Remove the live slot's stale containers, so that they are created again from this checkout.

    A running container stays, and a line names the command that replaces it without a failed
    request. With `is_all`, running containers are removed too: the slot then does not serve until
    it is started.
    """
    names = engine.slot_services(slot)
    stale = [each for each in list_stale(project, inventory) if each.service in names]
    removed = {each.service for each in stale if is_all or not each.is_running}
    if removed:
        runner.run(engine.compose("rm", "--stop", "--force", *sorted(removed)))
    left = ", ".join(each.service for each in stale if each.service not in removed)
    if left:
        runner.say(f"    {left} mount files of another directory until ./scripts/deploy.sh")
