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
# Each checkout has it, and the engine makes no such file where a bind source is missing.
MARK = "compose.yaml"


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
    """Return the projects that this checkout made, where a ledger without a record is theirs."""
    if not project.ledger.exists():
        return set()
    checkouts = {each.checkout for each in inventory.containers if each.checkout}
    root = project.root.resolve()
    own = {checkout for checkout in checkouts if _resolved(checkout) == root}
    return {each.project for each in inventory.containers if each.checkout in own}


def _resolved(checkout: str) -> Path:
    return Path(checkout).resolve()


def _is_other(checkout: str, root: Path) -> bool:
    """Whether another checkout exists at this path; a link to this checkout is no other one."""
    if _resolved(checkout) == root.resolve():
        return False
    try:
        return (Path(checkout) / MARK).is_file() and not os.path.samefile(checkout, root)
    except PermissionError:
        return True  # closed to this user, so it exists


def refuse_others(project: Project, inventory: Inventory, *, is_adopting: bool = False) -> str:
    """Return a note on what this checkout takes over; empty if the stack is its own.

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
    """Write the record if it differs; a machine whose id is not known keeps the recorded id."""
    former, owner = read(project), present(project)
    if former and not owner.machine:
        owner = replace(owner, machine=former.machine)
    if owner != former:
        runner.make_directory(project.state, 0o750)
        runner.write(owner_file(project), json.dumps(asdict(owner)) + "\n", 0o640)


def list_stale(project: Project, inventory: Inventory) -> list[Container]:
    """Return the containers of the project that mount files of another directory.

    Compose replaces no container whose secrets alone have another path: its next restart fails.
    """
    root = project.root.resolve()
    mine = [each for each in inventory.containers if each.project == project.name and each.checkout]
    stale = {
        checkout for checkout in {each.checkout for each in mine} if _resolved(checkout) != root
    }
    return [each for each in mine if each.checkout in stale]


def refuse_stale(project: Project, inventory: Inventory) -> None:
    """Refuse to stop containers that could not start again, after the checkout was moved.

    Raises:
        Failure: naming them.
    """
    stale = [each for each in list_stale(project, inventory) if each.is_running]
    if stale:
        names = ", ".join(each.service for each in stale)
        raise Failure(
            f"{names} mount files of {stale[0].checkout} and could not start again",
            hints=["nothing was touched", "./scripts/up.sh, then ./scripts/deploy.sh"],
            runbook=RUNBOOK,
        )


def remove_stale(
    runner: Runner, project: Project, inventory: Inventory, slot: str, *, is_all: bool
) -> None:
    """Remove the live slot's stale containers, so that they are made anew from this checkout.

    A container that runs stays, and a line names the command that replaces it without a failed
    request. `is_all` removes it too: the slot is then away until it is started.
    """
    names = engine.slot_services(slot)
    stale = [each for each in list_stale(project, inventory) if each.service in names]
    removed = {each.service for each in stale if is_all or not each.is_running}
    if removed:
        runner.run(engine.compose("rm", "--stop", "--force", *sorted(removed)))
    left = ", ".join(each.service for each in stale if each.service not in removed)
    if left:
        runner.say(f"    {left} mount files of another directory until ./scripts/deploy.sh")
