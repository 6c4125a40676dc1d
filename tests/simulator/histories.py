"""Runs a history: actions on a host, and a check of every invariant after each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.simulator import invariants, obstacles, truths
from tests.simulator.actions import Action, carry_out
from tests.simulator.host import Host
from tests.simulator.invariants import ROLLED_BACK, Step, Violation
from tests.simulator.known import is_known
from tests.simulator.operators import Outcome


@dataclass
class Breach(Exception):
    """An invariant is broken; the text is the history, with the breach at the end."""

    violations: list[Violation]
    history: str

    def __str__(self) -> str:
        return self.history


@dataclass
class History:
    """The actions on one host, after the name of its start state.

    Attributes:
        title: the start, and the seed if there is one.
        known: how often each exception of known.py applied.
    """

    host: Host
    title: str
    lines: list[str] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    is_strict: bool = False
    signature: tuple[object, ...] = ()

    def play(self, actions: Iterable[Action]) -> list[Outcome | None]:
        """Do the actions; raise Breach at the first invariant that is broken."""
        return [self.do(action) for action in actions]

    def do(self, action: Action) -> Outcome | None:
        """Do one action and check the invariants."""
        host = self.host
        host.engine.replaced.clear()
        before, in_the_way = truths.look(host), invariants.reasons(host, action)
        targets = obstacles.targets_of(host, action)
        outcomes = carry_out(host, action)
        host.note_migrations()
        outcome = outcomes[-1] if outcomes else None
        signature = truths.signature(host)
        is_new, self.signature = signature != self.signature, signature
        step = Step(host, action, before, truths.look(host), outcome, in_the_way, targets, is_new)
        self.lines.append(describe(len(self.lines) + 1, action, outcome))
        violations = []
        for violation in invariants.check(step):
            name = "" if self.is_strict else is_known(violation, step)
            if name:
                self.known[name] = self.known.get(name, 0) + 1
            else:
                violations.append(violation)
        judge(step)
        if violations:
            raise Breach(violations, self.text(violations))
        return outcome

    def text(self, violations: Sequence[Violation] = ()) -> str:
        """Return the history as text."""
        return "\n".join([self.title, *self.lines, *(f"    (!) {v}" for v in violations)])


def describe(number: int, action: Action, outcome: Outcome | None) -> str:
    """Return one line: the action and its outcome."""
    if outcome is None:
        return f"{number:3}. {action}"
    step = f", at: {outcome.steps[-1][:90]}" if outcome.is_hit and outcome.steps else ""
    error = f": {outcome.error[:160]}" if outcome.error else ""
    return f"{number:3}. {action} -> {outcome.code}{step}{error}"


def judge(step: Step) -> None:
    """After a command, add the live deployment to the list of deployments."""
    host, deployments = step.host, step.host.state.deployments
    container = host.live_container(host.project)
    if step.outcome is None or container is None or not container.is_well:
        return
    is_done, is_rollback = step.code == 0 and not step.is_plan, step.action.name == "rollback"
    former = deployments.live
    deployments.judge_seen(is_taken_back=step.code == ROLLED_BACK)
    known = deployments.find(host.engine, container)
    if is_rollback and is_done and former and known is not former:
        former.is_good = False  # somebody rolled back from it
    if known is None or (step.action.name == "deploy" and known.number != container.number):
        deployments.add(host.engine, container, is_good=True if is_done else None)
        return
    deployments.move_to_end(known)
    if is_done and step.action.name in {"deploy", "rollback"}:
        known.is_good = True
