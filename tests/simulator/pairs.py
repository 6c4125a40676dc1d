"""All pairs: a command that is killed or fails at one of its steps, and the next command."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.simulator import actions, faults, files
from tests.simulator.actions import Action
from tests.simulator.faults import Fault
from tests.simulator.histories import Breach, History
from tests.simulator.host import Copy, Host
from tests.simulator.operators import Outcome

# Each command, with the actions before it that give it work to do.
COMMANDS = {
    "up": ("", "up"),
    "up of a new port": ("set HTTPS_PORT=9443", "up --apply nginx"),
    "up in a moved folder": ("move-folder", "up --apply all"),
    "deploy": ("edit good", "deploy"),
    "deploy of settings": ("set LOG_LEVEL=DEBUG", "deploy"),
    "deploy with a migration": ("migration pre", "deploy"),
    "deploy that is taken back": ("edit fails-in-traffic", "deploy"),
    "deploy that never starts": ("edit crashes", "deploy"),
    "rollback": ("", "rollback"),
    "retire": ("", "retire"),
    "status": ("", "status"),
    "plan": ("edit good", "deploy --plan"),
    "backup": ("", "backup"),
    "restore": ("backup", "restore"),
    "upgrade": ("", "upgrade"),
}
ON_EMPTY = ("up", "deploy that never starts", "status")
NEXT = (
    "deploy",
    "rollback",
    "up",
    "status",
    "check-config",
    "restore",
    "backup",
    "deploy --plan",
    "retire",
    "upgrade",
)
# For the many start states: the commands that change the slots, and `status`.
SHORT_NEXT = ("deploy", "rollback", "up", "status")
# Changes by a person or by time before the next command: the cause of the first failure.
CAUSE_GONE = ("edit good", "wait 30")
# One kill and one failure at each step; the nightly run uses each way to fail.
EVERY_CHANGE = (faults.KILLED_AFTER, faults.FAILS)
# Facts of an entry of the ledger that differ between two runs of one history.
VARYING = ("at", "who", "pid", "seconds", "reason", "window_ends")


@dataclass
class Count:
    """The figures of a run.

    Attributes:
        pairs: all pairs; played: the pairs that began in a new state.
    """

    pairs: int = 0
    played: int = 0
    actions: int = 0
    breaches: list[Breach] = field(default_factory=list)

    def add(self, other: "Count") -> None:
        """Add the figures of another run."""
        self.pairs += other.pairs
        self.played += other.played
        self.actions += other.actions
        self.breaches += other.breaches


@dataclass(frozen=True)
class Branch:
    """A history that goes on in several ways, with the copy of its host."""

    history: History
    copy: Copy

    @classmethod
    def of(cls, history: History) -> "Branch":
        """Return the branch that begins here."""
        return cls(replace(history, lines=list(history.lines)), history.host.copy())

    def begin(self) -> History:
        """Put the host back to where the branch begins; return a history from there."""
        self.history.host.put_back(self.copy)
        return replace(self.history, lines=list(self.history.lines))


def with_faults(
    words: tuple[str, ...], outcome: Outcome | None, modes: Sequence[str], *, has_questions: bool
) -> Iterator[Action]:
    """Yield a command, of which the outcome is known, with each fault that can strike it."""
    if outcome is None:
        return  # there is no window that could end
    for at, step in enumerate(outcome.steps, 1):
        is_file = step.startswith(("write ", "append "))
        for mode in modes:
            if not is_file or mode in faults.FILE_MODES:
                yield Action(words, Fault(mode, at))
    for at in range(1, len(outcome.questions) + 1) if has_questions else ():
        yield Action(words, Fault(faults.ANSWERS_NOT, at))


def play_all(
    host: Host,
    start: Copy,
    title: str,
    name: str,
    *,
    modes: Sequence[str] = EVERY_CHANGE,
    following: Sequence[str] = NEXT,
    has_questions: bool = False,
) -> Count:
    """Play every pair that begins with one command in one start state."""
    count, known = Count(), set[str]()
    host.put_back(start)
    history = History(host, f"from: {title}")
    try:
        history.play(actions.read(COMMANDS[name][0]))
    except Breach as breach:
        return Count(breaches=[breach])
    branch, words = Branch.of(history), tuple(COMMANDS[name][1].split())
    firsts = deque([Action(words)])
    while firsts:
        history, first = branch.begin(), firsts.popleft()
        try:
            outcome = history.do(first)
            if first.fault is None:
                firsts += with_faults(words, outcome, modes, has_questions=has_questions)
            history.play(actions.read("\n".join(CAUSE_GONE)))
        except Breach as breach:
            count.breaches.append(breach)
            continue
        finally:
            count.actions += len(history.lines) - len(branch.history.lines)
        count.pairs += len(following)
        state = describe(host)
        if state not in known:
            known.add(state)
            count.add(play_next(Branch.of(history), following))
    return count


def play_next(branch: Branch, commands: Iterable[str]) -> Count:
    """Play each command as the next one of a history."""
    count = Count()
    for line in commands:
        history = branch.begin()
        try:
            history.play(actions.read(line))
        except Breach as breach:
            count.breaches.append(breach)
        count.played += 1
        count.actions += len(history.lines) - len(branch.history.lines)
    return count


def describe(host: Host) -> str:
    """Return the state of a host, equal for two runs with the same effect.

    It leaves out times, identifiers, the number of rows and the random secrets.
    """
    engine, state = host.engine, host.state
    images = {identifier: image.content for identifier, image in engine.images.items()}
    facts: list[object] = []
    for _, each in sorted(engine.containers.items()):
        facts += [each.project, each.service, each.state, each.ends_at is None, each.checkout]
        facts += [each.is_stopped_by_hand, images[each.image], each.configuration]
        facts += [each.environment, sorted(each.secrets)]
    for name, volume in sorted(engine.volumes.items()):
        facts += [name, volume.link, volume.prepared is None, len(volume.backups.kept)]
        facts += [(place, d.applied) for place, d in sorted(volume.directories.items())]
    facts += [(name, images.get(identifier)) for name, identifier in sorted(engine.tags.items())]
    facts += [(d.number, d.image, d.is_good) for d in state.deployments.listed]
    facts += [engine.certificate, sorted(engine.one_shots)]
    facts += [process.arguments for process in state.scheduled]
    facts += described_files(host.folder)
    return "\n".join(map(repr, facts))


def described_files(folder: Path) -> Iterator[tuple[str, object]]:
    """Yield each file below a folder with its content, where it does not vary."""
    for path, (kind, content, mode) in sorted(files.copy_of(folder).entries.items()):
        name = path.removeprefix(f"{folder}/")
        if name.startswith("state/evidence"):
            continue
        if name == "state/ledger.jsonl":
            yield name, [describe_entry(line) for line in content.splitlines()]
        elif "/secrets/" in name or "/fingerprints/" in name or name == "state/lock":
            yield name, (kind, mode, bool(content))
        else:
            yield name, (kind, mode, content)


def describe_entry(line: bytes) -> object:
    """Return an entry of the ledger without its time and its words."""
    try:
        entry = json.loads(line)
    except ValueError:
        return "cut"
    return {key: value for key, value in entry.items() if key not in VARYING}
