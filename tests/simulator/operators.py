"""Runs an operator's command: the real command line and story on the simulated host."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache

from stack import __main__ as command_line
from stack import terminal
from stack.commands.command import Command

from tests.simulator.faults import Fault, Killed
from tests.simulator.files import content_of
from tests.simulator.host import Host
from tests.simulator.machine_facts import Place, places_of, replaced
from tests.simulator.runner import SimulatedRunner

KILLED = -9
TRACEBACK = 99  # no code of the scripts: an exception that no story caught

parser = cache(command_line.parser)
commands = cache(command_line.commands)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command.

    Attributes:
        code: the exit code, KILLED or TRACEBACK.
        lines: the output.
        steps, questions: the effects and the queries of the story, in order.
        is_hit: whether the fault occurred; a short command may end before it.
    """

    code: int
    lines: list[str]
    steps: list[str]
    questions: list[Command]
    is_hit: bool

    @property
    def error(self) -> str:
        """The line with the error."""
        return next((line.splitlines()[0] for line in self.lines if line.startswith("error: ")), "")

    @property
    def trace(self) -> str:
        """The last lines of a traceback that was printed before the error."""
        place = next((n for n, line in enumerate(self.lines) if line.startswith("error: ")), 0)
        return " | ".join(self.lines[place - 1].splitlines()[-3:]) if place else ""

    @property
    def report(self) -> list[str]:
        """The lines of the error: observation, hints and the entry of the runbook."""
        text = next((line for line in self.lines if line.startswith("error: ")), "")
        return text.splitlines()


@contextmanager
def command_line_of(host: Host, runner: SimulatedRunner, words: list[str]) -> Iterator[None]:
    """Have the command line run on the host."""
    places: list[Place] = [
        *places_of(host),
        (command_line, "RealRunner", lambda *_: runner),
        (command_line, "parser", parser),
        (command_line, "commands", commands),
        (command_line, "ROOT", host.root),
        (signal, "signal", lambda *_: None),
        (terminal, "choose", lambda **_: runner.display),
        (sys, "argv", ["stack", *words]),
    ]
    with replaced(places):
        yield


def type_command(host: Host, words: list[str], fault: Fault | None = None) -> Outcome:
    """Run one command of an operator; the fault occurs at its step."""
    runner = SimulatedRunner(host, fault)
    with command_line_of(host, runner, words):
        try:
            code = command_line.main()
        except Killed:
            code = KILLED
            leave_lock_behind(host, runner)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception as error:
            code = TRACEBACK
            runner.display.lines.append(f"traceback: {type(error).__name__}: {error}")
    return Outcome(code, runner.display.lines, runner.steps, runner.questions, runner.is_hit)


def leave_lock_behind(host: Host, runner: SimulatedRunner) -> None:
    """Put back the lock file's content: a killed process could not empty it."""
    if runner.lock:
        (host.folder / "state" / "lock").write_bytes(runner.lock)


def end_windows(host: Host) -> list[Outcome]:
    """Run the processes whose rollback window has ended."""
    due = [process for process in host.state.scheduled if process.at <= host.clock.now]
    host.state.scheduled = [p for p in host.state.scheduled if p.at > host.clock.now]
    outcomes, present = [], host.state.place
    for process in due:
        if not (host.folder / process.place).is_dir():
            continue  # somebody moved the folder of its scripts
        host.go(process.place)
        words = list(process.arguments)
        words[words.index("--after") + 1] = "0"  # the time has passed
        outcomes.append(type_command(host, words))
    host.go(present)
    return outcomes


def ledger(host: Host) -> list[dict[str, object]]:
    """Return the readable entries of the ledger."""
    content = content_of(f"{host.folder}/state/ledger.jsonl")
    lines = (content or b"").decode("utf-8", errors="replace").splitlines()
    return [entry for line in lines if (entry := _entry_in(line)) is not None]


@lru_cache(maxsize=1024)  # the invariants read the file several times after each action
def _entry_in(line: str) -> dict[str, object] | None:
    try:
        entry: dict[str, object] = json.loads(line)
    except ValueError:
        return None
    return entry
