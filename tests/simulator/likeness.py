"""What both hosts must agree on after each action, in words that fit both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tests.simulator import cover
from tests.simulator.actions import Action
from tests.simulator.cover import Chosen
from tests.simulator.faults import Fault
from tests.simulator.host import Copy, Host
from tests.simulator.kinds import kind_of
from tests.simulator.operators import Outcome, ledger, type_command

SAME, OTHER = "the same slot", "the other slot"


@dataclass(frozen=True)
class Strike:
    """A fault at a step that is named by its kind, for a host whose steps may be more or fewer.

    Attributes:
        place: which of the steps of this kind, counted from 1.
    """

    mode: str
    kind: str
    place: int

    def __str__(self) -> str:
        number = f" ({self.place})" if self.place > 1 else ""
        return f"{self.mode}: {self.kind}{number}"


@dataclass(frozen=True)
class Facts:
    """The outcome of an action.

    Attributes:
        code: the exit code; None where there was nothing to do.
        is_struck: whether the fault came to pass.
        slot: the slot that the live link names, compared with the start; empty without a link.
        release: the live one, as the number of edits between it and the start.
        deployment: the number of the live one, counted from that of the start.
        is_answering: whether the front door answers.
        ledger: the action and the result of the last entry.
        status: the exit code of `status.sh`.
        error: the observation in the first line of the error, without its details.
    """

    code: int | None
    is_struck: bool
    slot: str
    release: int | None
    deployment: int | None
    is_answering: bool
    ledger: str
    status: int
    error: str

    def differing(self, other: "Facts") -> list[str]:
        """Return the names of the facts in which two outcomes differ."""
        names = [field.name for field in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def __str__(self) -> str:
        door = "answers" if self.is_answering else "does not answer"
        live = f"{self.slot or 'no link'}, release {self.release}, deployment {self.deployment}"
        struck = ", struck" if self.is_struck else ""
        texts = [f"exit {self.code}{struck}", live, door, self.ledger or "no entry"]
        return "; ".join([*texts, f"status {self.status}", *([self.error] if self.error else [])])


@dataclass(frozen=True)
class Base:
    """What the facts of a history are counted from.

    Attributes:
        slot: the slot that was live at the start.
        number: its deployment.
        entries: the ledger's entries at the start, which earlier histories may have left.
    """

    slot: str
    number: int
    entries: Sequence[Mapping[str, object]] = ()

    def slot_of(self, link: str) -> str:
        """Return a slot compared with that of the start."""
        return link and (SAME if link == self.slot else OTHER)

    def number_of(self, number: int | None) -> int | None:
        """Return a deployment counted from that of the start; 0 is a container without one."""
        return number and number - self.number

    def entry_text(self, entries: Sequence[Mapping[str, object]]) -> str:
        """Return the action and the result of the last entry, if the history made one."""
        if not entries or entries[-1] in self.entries:
            return ""
        return f"{entries[-1]['action']} {entries[-1].get('result', '')}"


@dataclass(frozen=True)
class Line:
    """One action of a history, with its outcome on one host; an event has none."""

    action: Action
    strike: Strike | None
    facts: Facts | None

    def __str__(self) -> str:
        return " ".join(self.action.words) + (f" ! {self.strike}" if self.strike else "")


def observation_of(error: str, edits: Mapping[str, int], folder: str, project: str) -> str:
    """Return the observation of an error line, without slots, numbers and details."""
    text = error.removeprefix("error: ")
    # The longest first: the release of an edited checkout begins with that of the commit.
    for release in sorted(edits, key=len, reverse=True):
        number = edits[release]
        text = text.replace(release, f"release{'+' * number or '-' * -number}")
    return kind_of(text, folder, project).partition(": ")[0]


def simulate(host: Host, start: Copy, chosen: Chosen) -> list[Line]:
    """Play a history on the simulated host."""
    host.put_back(start)
    live = host.live_container(host.project)
    slot, number = host.engine.link(host.project) or "blue", live.number if live else 0
    base = Base(slot, number, ledger(host))
    first, lines = host.state.variant, []
    for action in chosen.actions:
        outcome = cover.do(host, action)
        if not action.is_command:
            lines.append(Line(action, None, None))
            continue
        edits = {name: int(short[1:]) - first for short, name in host.state.names.items()}
        facts = facts_of(host, outcome, base, edits, is_fault=action.fault is not None)
        strike = strike_of(host, action.fault, outcome) if action.fault and outcome else None
        lines.append(Line(action, strike, facts))
    return lines


def strike_of(host: Host, fault: Fault, outcome: Outcome) -> Strike:
    """Return the fault of a command by the kind of the step that it struck."""
    kinds = cover.kinds_in(host, outcome)[: fault.at]
    return Strike(fault.mode, kinds[-1], kinds.count(kinds[-1]))


def facts_of(
    host: Host, outcome: Outcome | None, base: Base, edits: Mapping[str, int], *, is_fault: bool
) -> Facts:
    """Return the outcome of a command on the simulated host."""
    live = host.live_container(host.project)
    is_linked = host.engine.is_running(host.project, "nginx")
    error = outcome.error if outcome else ""
    return Facts(
        code=outcome.code if outcome else None,
        is_struck=is_fault and outcome is not None and outcome.is_hit,
        slot=base.slot_of(host.engine.link(host.project) if is_linked else ""),
        release=edits.get(host.engine.images[live.image].release) if live else None,
        deployment=base.number_of(live.number) if live else None,
        is_answering=host.serving() is not None,
        ledger=base.entry_text(ledger(host)),
        status=type_command(host, ["status"]).code,
        error=observation_of(error, edits, str(host.folder), host.project),
    )


def compare(simulated: Sequence[Line], real: Sequence[Line]) -> str:
    """Return a history with both outcomes of each action, if any of them differ."""
    lines, is_alike = [], True
    for number, (ours, theirs) in enumerate(zip(simulated, real, strict=True), 1):
        lines.append(f"{number}. {ours}")
        if ours.facts is None or theirs.facts is None:
            continue
        differing = ours.facts.differing(theirs.facts)
        mark = f"   (!) {', '.join(differing)}" if differing else ""
        lines += [f"     simulated: {ours.facts}", f"     real:      {theirs.facts}{mark}"]
        is_alike = is_alike and not differing
    return "" if is_alike else "\n".join(lines)
