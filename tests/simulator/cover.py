"""Chooses the histories that are played on the real engine too: a cover of commands and steps.

Left out, because a real host cannot do it within seconds or not in the same way twice: a full disk,
a restart of the machine or of the engine, a command that hangs or is cut off midway, a question
without an answer, and a registry, which no test needs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulator import actions, faults, pairs, starts
from tests.simulator.actions import Action, carry_out
from tests.simulator.containers import POSTGRES_VERSION
from tests.simulator.faults import Fault
from tests.simulator.host import Copy, Host
from tests.simulator.kinds import kind_of
from tests.simulator.operators import Outcome

HISTORIES, MOST_ACTIONS = 60, 5
EMPTY, FIRST, WINDOW = "empty host", "first release in blue", "window open, green live"
# What a real command does in the same way each time.
MODES = (
    faults.KILLED_AFTER,
    faults.FAILS,
    faults.KILLED_BEFORE,
    faults.FAILS_AFTER,
    faults.STOPPED,
)
# The next commands after the faults; a restore and an upgrade are slow, and `status` comes anyway.
NEXT = tuple(line for line in pairs.NEXT if line not in {"restore", "upgrade", "status"})
# Refused where there is no way back.
REFUSED = "rollback"
# The last ones leave another version of Postgres, or nothing, behind.
ORDER = (*((WINDOW, name) for name in pairs.COMMANDS), (EMPTY, "up"))
BASES = {
    f"{service.upper()}_IMAGE": f"slipway-base/{service}:debian"
    for service in ("python", "nginx", "postgres", "redis")
}
NEXT_POSTGRES = actions.COMMANDS["upgrade"][-1]


@dataclass(frozen=True)
class Chosen:
    """A history to be played on both hosts."""

    start: str
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        return "\n".join([f"from: {self.start}", *map(str, self.actions)])


def make_starts(folder: Path) -> dict[str, Copy]:
    """Return the start states; the base images are there, as on a host that built them."""

    def furnish(host: Host) -> None:
        example = host.root / ".env.example"
        text = example.read_text(encoding="utf-8")
        for key, image in BASES.items():
            text = text.replace(f"\n{key}=\n", f"\n{key}={image}\n")
            host.engine.add_image(image, {})
        example.write_text(text, encoding="utf-8")
        host.engine.add_image(NEXT_POSTGRES, {}, version=POSTGRES_VERSION + 1)
        actions.name_checkout(host)

    return starts.copies(folder, (EMPTY, FIRST, WINDOW), furnish)


def kinds_in(host: Host, outcome: Outcome) -> list[str]:
    """Return the kinds of a command's steps, in their order."""
    return [kind_of(step, str(host.folder)) for step in outcome.steps]


def do(host: Host, action: Action) -> Outcome | None:
    """Do an action, and let the time pass in which a worker finishes; return its outcome."""
    outcomes = carry_out(host, action)
    host.clock.advance(10)
    host.engine.end_drained()
    return outcomes[-1] if outcomes else None


def record(host: Host, start: Copy, name: str) -> list[str]:
    """Return the kinds of the steps that a command has in a start state."""
    before, line = pairs.COMMANDS[name]
    host.put_back(start)
    for action in actions.read(before):
        do(host, action)
    outcome = do(host, actions.parse(line))
    return kinds_in(host, outcome) if outcome else []


@dataclass
class Chooser:
    """Strikes each kind of step of each command once, and then again in another way.

    Attributes:
        struck: the ways in which a step of a command was struck.
    """

    host: Host
    starts: Mapping[str, Copy]
    chosen: list[Chosen] = field(default_factory=list)
    struck: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def choose(self) -> list[Chosen]:
        """Return the histories, in the order in which a real host needs the fewest new starts."""
        quiet = [name for name in pairs.COMMANDS if not self.has_steps(name)]
        lines = [REFUSED, *(line for name in quiet for line in pairs.COMMANDS[name] if line)]
        lines += [word for word in actions.COMMANDS if word not in self.words()]
        self.chosen.append(Chosen(FIRST, tuple(map(actions.parse, lines))))
        for times in range(1, len(MODES) + 1):
            for start, name in ORDER:
                while len(self.chosen) < HISTORIES and self.add(start, name, times):
                    pass
        return sorted(self.chosen, key=self.order)

    def has_steps(self, name: str) -> bool:
        """Whether a command does anything."""
        return bool(record(self.host, self.starts[WINDOW], name))

    def words(self) -> set[str]:
        """Return the first words of all commands that are struck."""
        return {line.split()[0] for _, line in pairs.COMMANDS.values()}

    def order(self, chosen: Chosen) -> tuple[int, int]:
        """Return the place of a history: what upgrades Postgres or needs an empty host is last."""
        is_upgrade = any(action.name == "upgrade" for action in chosen.actions)
        return (FIRST, WINDOW, EMPTY).index(chosen.start), is_upgrade

    def add(self, start: str, name: str, times: int) -> bool:
        """Add a history whose faults strike steps that were struck fewer times, if there is one."""
        before, line = pairs.COMMANDS[name]
        self.host.put_back(self.starts[start])
        played = actions.read(before)
        for action in played:
            do(self.host, action)
        first = len(played)
        while len(played) < MOST_ACTIONS - 1:
            struck = self.strike(line, name, times)
            if struck is None:
                break
            played.append(struck)
        if len(played) > first:
            played.append(actions.parse(NEXT[len(self.chosen) % len(NEXT)]))
            self.chosen.append(Chosen(start, tuple(played)))
        return len(played) > first

    def strike(self, line: str, name: str, times: int) -> Action | None:
        """Do the command with a fault at its first step that was struck fewer times."""
        host, words = self.host, tuple(line.split())
        present = host.copy()
        outcome = do(host, Action(words))
        for at, kind in enumerate(kinds_in(host, outcome) if outcome else [], 1):
            struck = self.struck.setdefault((name, kind), [])
            mode = next(self.modes(kind, struck), "")
            if len(struck) < times and mode:
                host.put_back(present)
                action = Action(words, Fault(mode, at))
                do(host, action)
                struck.append(mode)
                return action
        return None

    def modes(self, kind: str, struck: list[str]) -> Iterator[str]:
        """Yield the ways to strike a step that are left, each first one in its turn."""
        turn = sum(map(len, self.struck.values())) % len(MODES)
        is_file = kind.startswith(("write ", "append "))
        for mode in MODES[turn:] + MODES[:turn]:
            if mode not in struck and (not is_file or mode in faults.FILE_MODES):
                yield mode


def wanted(host: Host, made: Mapping[str, Copy]) -> set[str]:
    """Return all that must be covered: each line of a command, and each kind of step."""
    lines = {line for pair in pairs.COMMANDS.values() for line in pair if line}
    kinds = {
        kind
        for start in made.values()
        for name in pairs.COMMANDS
        for kind in record(host, start, name)
    }
    return lines | actions.COMMANDS.keys() | kinds


def covered(host: Host, start: Copy, chosen: Chosen) -> set[str]:
    """Return what a history covers: the lines that it does, and the kinds of step that it strikes.

    A fault whose step is never reached strikes nothing.
    """
    host.put_back(start)
    covered = set[str]()
    for action in chosen.actions:
        outcome = do(host, action)
        covered.add(" ".join(action.words))
        if outcome and action.fault and outcome.is_hit:
            covered.add(kinds_in(host, outcome)[action.fault.at - 1])
    return covered
