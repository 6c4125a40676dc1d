"""Decides whether a checkout may work on a stack; asks nothing and changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ADOPT = "./scripts/up.sh --adopt"
OWN_STACK = (
    "for a second stack set in .env: COMPOSE_PROJECT_NAME, SLIPWAY_IMAGE, STATE_DIR, the ports"
)


@dataclass(frozen=True)
class Owner:
    """The checkout, the project and the machine that a state directory belongs to.

    Attributes:
        machine: the machine's id; empty if it is not known.
    """

    checkout: str
    project: str
    machine: str


@dataclass(frozen=True)
class Facts:
    """The facts that the decision needs.

    Attributes:
        owner: the record of the state directory; None if there is none.
        present: the checkout, project and machine of this command.
        other_checkouts: the other checkouts that exist, each with this project's running containers
            that it created; they include the recorded checkout if it exists.
        volumes: the volumes with data of each other project that this state directory served.
    """

    owner: Owner | None
    present: Owner
    other_checkouts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    volumes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The faults with their hints; without a fault, a note if the stack is taken over."""

    faults: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    note: str = ""


def judge(facts: Facts, *, is_adopting: bool = False) -> Verdict:
    """Return the faults that forbid this command.

    With `is_adopting`, the operator wants this checkout and this machine to take the stack over. No
    option takes over the volumes of another project: Compose would create an empty database.
    """
    faults, hints = _judge_project(facts)
    if not is_adopting:
        for more, advice in (_judge_machine(facts), _judge_checkout(facts)):
            faults, hints = faults + more, hints + advice
    return Verdict(tuple(faults), tuple(hints), "" if faults else _note(facts))


def _judge_project(facts: Facts) -> tuple[list[str], list[str]]:
    faults, hints = list[str](), list[str]()
    for project, volumes in facts.volumes.items():
        names = ", ".join(volumes)
        faults.append(
            f"this state directory belongs to the project {project}, whose volumes are here "
            f"({names}), and COMPOSE_PROJECT_NAME is {facts.present.project}"
        )
        hints += [f"COMPOSE_PROJECT_NAME={project} in .env names that stack again", OWN_STACK]
    return faults, hints


def _judge_machine(facts: Facts) -> tuple[list[str], list[str]]:
    owner, machine = facts.owner, facts.present.machine
    if not owner or not owner.machine or not machine or owner.machine == machine:
        return [], []
    return [
        f"this state directory was written on another machine ({owner.machine[:8]}..., "
        f"and this one is {machine[:8]}...)"
    ], [f"if the stack of that machine is to live here and no longer there: {ADOPT}"]


def _judge_checkout(facts: Facts) -> tuple[list[str], list[str]]:
    faults, hints = list[str](), list[str]()
    for checkout, containers in facts.other_checkouts.items():
        has = f", and runs its {', '.join(containers)}" if containers else ""
        faults.append(
            f"another checkout, {checkout}, owns the project {facts.present.project}{has}"
        )
        hints += [
            f"work there: cd {checkout}",
            OWN_STACK,
            f"to move the stack here, with .env and secrets/ of that checkout: {ADOPT}",
        ]
    return faults, hints


def _note(facts: Facts) -> str:
    owner, present = facts.owner, facts.present
    if owner is None:
        return ""
    changes = []
    if owner.checkout != present.checkout:
        is_gone = owner.checkout not in facts.other_checkouts
        changes.append(f"from {owner.checkout}" + (", which is gone" if is_gone else ""))
    if owner.project != present.project:
        changes.append(f"from the project {owner.project}, which has no volumes")
    if owner.machine and present.machine and owner.machine != present.machine:
        changes.append(f"from the machine {owner.machine[:8]}...")
    return f"this checkout takes the stack over {'; '.join(changes)}" if changes else ""
