"""All pairs: a command that fails at one of its steps, and the command that is typed next."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulator import actions, faults
from tests.simulator.actions import Action
from tests.simulator.faults import Fault
from tests.simulator.histories import Breach, History
from tests.simulator.host import Copy, Host

# The command, and what precedes it so that it has something to do.
COMMANDS = {
    "up": ("", "up"),
    "deploy": ("edit good", "deploy"),
    "deploy with a migration": ("migration pre", "deploy"),
    "deploy that is taken back": ("edit fails-in-traffic", "deploy"),
    "deploy that never starts": ("edit crashes", "deploy"),
    "rollback": ("", "rollback"),
    "retire": ("", "retire"),
    "status": ("", "status"),
    "plan": ("edit good", "deploy --plan"),
    "backup": ("", "backup"),
    "restore": ("backup", "restore"),
}
NEXT = ("deploy", "rollback", "up", "status", "restore", "backup", "deploy --plan", "retire")
# What a person, or the time, changes before the next command: the cause of the first failure.
CAUSE_GONE = ("edit good", "wait 30")


@dataclass
class Count:
    """What was covered."""

    pairs: int = 0
    actions: int = 0
    commands: int = 0


def first_commands(host: Host, start: Copy, name: str) -> Iterator[Action]:
    """Yield the command with each fault that can strike it."""
    before, line = COMMANDS[name]
    host.put_back(start)
    history = History(host, name)
    history.play(actions.read(before) if before else [])
    outcome = history.do(actions.parse(line))
    assert outcome is not None
    words = tuple(line.split())
    for at in range(1, len(outcome.steps) + 1):
        is_file = outcome.steps[at - 1].startswith(("write ", "append "))
        for mode in faults.FILE_MODES if is_file else faults.STEP_MODES:
            yield Action(words, Fault(mode, at))
    for at in range(1, len(outcome.questions) + 1):
        yield Action(words, Fault(faults.ANSWERS_NOT, at))


def play_all(host: Host, start: Copy, title: str, name: str) -> tuple[Count, list[Breach]]:
    """Play every pair that begins with one command in one start state."""
    count, breaches = Count(), list[Breach]()
    before = actions.read(COMMANDS[name][0]) if COMMANDS[name][0] else []
    for first in list(first_commands(host, start, name)):
        host.put_back(start)
        history = History(host, f"{title}, {name}")
        try:
            history.play([*before, first])
        except Breach as breach:
            breaches.append(breach)
            continue
        finally:
            count.actions += len(history.lines)
        history.play(actions.read("\n".join(CAUSE_GONE)))
        lines, copy = list(history.lines), host.copy()
        for following in NEXT:
            host.put_back(copy)
            history.lines = list(lines)
            try:
                history.play(actions.read(following))
            except Breach as breach:
                breaches.append(breach)
            count.pairs += 1
            count.actions += len(history.lines) - len(lines)
    return count, breaches
