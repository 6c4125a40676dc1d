"""The simulator's runner: it passes a story's queries and effects to the host; they may fail."""

import errno
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stack.attempt_log import AttemptLog
from stack.commands.command import Command
from stack.display import Display
from stack.https import Answer, Question
from stack.runner import READ_SECONDS, RUN_SECONDS, Result, accepted

from tests.simulator import faults
from tests.simulator.containers import CutOff
from tests.simulator.faults import Fault, Killed
from tests.simulator.host import Host, Scheduled

TIMEOUT = 124
STEP_SECONDS = 0.1
ASK_SECONDS = 0.01


class NoLog(AttemptLog):
    """Writes no log of the attempt: neither a command nor an invariant reads it."""

    def open(self, state: Path, command: str) -> None:
        """Create no file."""

    def write(self, text: str) -> None:
        """Keep no line."""


class QuietDisplay(Display):
    """Keeps every line of output."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        super().__init__(self.lines.append)
        self.log = NoLog()

    def report(self, text: str) -> None:
        self.lines.append(text)


class SimulatedRunner:
    """Carries out one command of an operator on the host."""

    is_dry = False

    def __init__(self, host: Host, fault: Fault | None = None) -> None:
        self.host = host
        self.fault = fault
        self.display = QuietDisplay()
        self.steps: list[str] = []
        self.questions: list[Command] = []
        self.is_dead = False
        self.is_hit = False  # whether the fault occurred
        self.lock: bytes | None = None  # the lock file's content when the story was killed

    def read(self, command: Command) -> Result:
        self._refuse_the_dead()
        self.questions.append(command)
        if self._is_due(faults.ANSWERS_NOT, len(self.questions)):
            self.host.clock.advance(command.timeout_seconds or READ_SECONDS)
            silence = Result(TIMEOUT, err=f"stopped after {READ_SECONDS:.0f} s")
            return accepted(command, silence)
        return accepted(command, self.host.answer(command))

    def run(self, command: Command) -> Result:
        self.display.effect(f"$ {command}")
        result = self._step(
            shlex.join(command.argv),
            lambda: self.host.answer(command),
            command.timeout_seconds or RUN_SECONDS,
        )
        return accepted(command, result)

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        result = self.run(replace(command, may_fail=True))
        for line in result.out.splitlines():
            self.display.progress(form(line))
        return result

    def start(self, command: Command, log: Path) -> None:
        def begin() -> Result:
            if "retire" not in command.argv:
                return Result(0)  # a second engine, which refuses to run beside the first
            arguments = list(command.argv[3:])
            seconds = float(arguments[arguments.index("--after") + 1])
            process = Scheduled(self.host.clock.now + seconds, arguments, self.host.state.place)
            self.host.state.scheduled.append(process)
            return Result(0)

        self._step(f"start {shlex.join(command.argv)}", begin, 0)

    def write(self, path: Path, content: str, mode: int) -> None:
        def put() -> Result:
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(content, encoding="utf-8")
            temporary.chmod(mode)
            temporary.replace(path)
            return Result(0)

        self._write_step(f"write {self._short(path)}", path, put)

    def append(self, path: Path, line: str) -> None:
        def put() -> Result:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            return Result(0)

        self._write_step(f"append to {self._short(path)}", path, put, half=line[: len(line) // 2])

    def make_directory(self, path: Path, mode: int) -> None:
        self._refuse_the_dead()
        if not path.is_dir():
            if self.host.state.is_disk_full:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            path.mkdir(parents=True)
            path.chmod(mode)

    def ask(self, question: Question) -> Answer:
        self._refuse_the_dead()
        self.host.clock.advance(ASK_SECONDS)
        return self.host.ask(question)

    def clock(self) -> float:
        return self.host.clock.now

    def sleep(self, seconds: float) -> None:
        self._refuse_the_dead()
        self.host.clock.advance(seconds)

    def say(self, text: str) -> None:
        self.display.say(text)

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.host.folder))

    def _refuse_the_dead(self) -> None:
        if self.is_dead:
            raise Killed

    def _is_due(self, mode: str, number: int) -> bool:
        is_due = self.fault is not None and (self.fault.mode, self.fault.at) == (mode, number)
        self.is_hit = self.is_hit or is_due
        return is_due

    def _mode(self) -> str:
        """Return the fault of the next step, or an empty text."""
        if self.fault is None or self.fault.mode == faults.ANSWERS_NOT:
            return ""
        return self.fault.mode if self._is_due(self.fault.mode, len(self.steps)) else ""

    def _die(self) -> None:
        file = self.host.folder / "state" / "lock"
        self.lock = file.read_bytes() if file.exists() else None
        self.is_dead = True
        raise Killed

    def _step(self, text: str, work: Callable[[], Result], seconds: float) -> Result:
        """Do one step, as its fault allows, and have the clients send a write after it."""
        self._refuse_the_dead()
        self.steps.append(text)
        self.host.clock.advance(STEP_SECONDS)
        mode = self._mode()
        if mode == faults.KILLED_BEFORE:
            self._die()
        if mode in {faults.FAILS, faults.HANGS}:
            return self._lost(mode, seconds)
        result = self._work(work, is_cut=mode in {faults.KILLED_MIDWAY, faults.FAILS_MIDWAY})
        self.host.write_as_client()
        self.host.note_migrations()
        if mode in {faults.KILLED_MIDWAY, faults.KILLED_AFTER}:
            self._die()
        if mode == faults.STOPPED:
            raise KeyboardInterrupt("SIGTERM")
        if mode in {faults.FAILS_MIDWAY, faults.FAILS_AFTER, faults.HANGS_AFTER}:
            return self._lost(mode, seconds)
        return result

    def _lost(self, mode: str, seconds: float) -> Result:
        if mode in {faults.HANGS, faults.HANGS_AFTER}:
            self.host.clock.advance(seconds)
            return Result(TIMEOUT, err=f"stopped after {seconds:.0f} s", seconds=seconds)
        return Result(1, err="the reason")

    def _work(self, work: Callable[[], Result], *, is_cut: bool) -> Result:
        engine = self.host.engine
        engine.budget = 1 if is_cut else None
        try:
            return work()
        except CutOff:
            return Result(1, err="cut off")
        finally:
            engine.budget = None

    def _write_step(self, text: str, path: Path, put: Callable[[], Result], half: str = "") -> None:
        """Write a file; a full disk and a failing step leave a half line of an append."""
        if self.host.state.is_disk_full:
            self._refuse_the_dead()
            self._fill(path, half)
        if self._step(text, put, 0).code != 0:
            self._fill(path, half)

    def _fill(self, path: Path, half: str) -> None:
        if half:
            with path.open("a", encoding="utf-8") as file:
                file.write(half)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
