"""The only module that runs commands, writes files and asks the front door; decides nothing."""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stack import https
from stack.commands.command import Command
from stack.display import Display
from stack.failure import Failure
from stack.https import Answer, Question

EVIDENCE_LINES = 25
# Time limits of commands that set none: for a question, and for a change.
READ_SECONDS = 30.0
RUN_SECONDS = 600.0
# The runbook entry for a failed command: it begins with the state of the engine and the containers.
# A story that is undone names its own entry instead.
ANY_ENTRY = "site-down"
RUN_MARK = "SLIPWAY_RUN"
STOP_SECONDS = 15.0
PIPE_BYTES = 64 * 1024  # Linux holds so much in a pipe that nobody reads yet
SHOW_SECONDS = 0.25  # between two reads of a running command's output
# Compose 2.26 moves the cursor even when it writes into a pipe, whatever the value of COMPOSE_ANSI.
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Result:
    """The result of a command: its exit code, its output and its duration in seconds."""

    code: int
    out: str = ""
    err: str = ""
    seconds: float = 0.0


class Runner(Protocol):
    """The questions and the effects that a story may have.

    `is_dry`: the runner only prints effects, so a story must not wait for them.
    """

    is_dry: bool

    @property
    def display(self) -> Display:
        """Return where the story's lines are printed."""

    def read(self, command: Command) -> Result:
        """Run a command that changes nothing; a failure is a Result, not an error."""

    def run(self, command: Command) -> Result:
        """Print a command that changes something, and run it.

        Raises:
            Failure: with the last lines of the output, unless the command may fail.
        """

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        """Run a command that takes long and print each line as it comes; a failure is a Result."""

    def start(self, command: Command, log: Path) -> None:
        """Start a program that outlives this one, in a session of its own."""

    def write(self, path: Path, content: str, mode: int) -> None:
        """Write a file atomically, with this mode."""

    def append(self, path: Path, line: str) -> None:
        """Append one line to a file and make it durable."""

    def make_directory(self, path: Path, mode: int) -> None:
        """Create a directory and its parents."""

    def ask(self, question: Question) -> Answer:
        """Ask the front door."""

    def clock(self) -> float:
        """Return monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def say(self, text: str) -> None:
        """Print a text for the person at the terminal."""


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-EVIDENCE_LINES:])


def failure_of(command: Command, result: Result) -> Failure:
    """Return the failure of a command; a story that knows more names its own runbook entry."""
    return Failure(
        f"`{shlex.join(command.argv)}` exited with {result.code} after {result.seconds:.1f} s",
        hints=["the lines above are the last ones of its output"],
        runbook=ANY_ENTRY,
        evidence=_last_lines(result.out + "\n" + result.err),
    )


@contextmanager
def _signals_deferred(pending: list[int]) -> Iterator[None]:
    """Defer signals while a command starts: without its process id, nothing could end it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    former = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    for number in former:
        signal.signal(number, lambda received, _: pending.append(received))
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _communicate(
    process: subprocess.Popen[str],
    stdin: str,
    timeout: float,
    show: Callable[[str], None] | None,
) -> tuple[str, str]:
    """Call `process.communicate`, and show the last line of output while it waits."""
    if show is None or len(stdin.encode()) > PIPE_BYTES:
        return process.communicate(stdin, timeout=timeout)
    _feed(process, stdin)
    deadline, read = time.monotonic() + timeout, [0, 0]
    while True:
        left = deadline - time.monotonic()
        try:
            return process.communicate(timeout=min(left, SHOW_SECONDS))
        except subprocess.TimeoutExpired as waiting:
            if left <= SHOW_SECONDS:
                raise
            for place, output in enumerate((waiting.output or b"", waiting.stderr or b"")):
                if len(output) > read[place]:
                    read[place] = len(output)
                    show(_last_line(output))


def _feed(process: subprocess.Popen[str], stdin: str) -> None:
    """Write the whole input at once: a later call of `communicate` does not go on with it."""
    if process.stdin:
        with suppress(BrokenPipeError):  # a program may end without reading its input
            process.stdin.write(stdin)
            process.stdin.close()
        process.stdin = None


def _last_line(output: bytes) -> str:
    """Return the last line that is not empty; a program may draw its progress over it with \\r."""
    lines = output[-4096:].decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "")


class RealRunner:
    """Runs commands and writes files."""

    is_dry = False

    def __init__(
        self,
        display: Display | None = None,
        variables: Callable[[Command], Mapping[str, str]] = lambda _: os.environ,
    ) -> None:
        """`variables` returns the environment of a command, besides the command's own."""
        self.display = display or Display()
        self._variables = variables

    def _environment(self, command: Command) -> dict[str, str]:
        return {**self._variables(command), **command.env}

    def read(self, command: Command) -> Result:
        return self._run(command, READ_SECONDS)

    def run(self, command: Command) -> Result:
        with self.display.command(f"$ {command}") as show:
            result = self._run(command, RUN_SECONDS, show)
        if result.code != 0 and not command.may_fail:
            raise failure_of(command, result)
        return result

    def _run(
        self, command: Command, default_seconds: float, show: Callable[[str], None] | None = None
    ) -> Result:
        argv, timeout = command.argv, command.timeout_seconds or default_seconds
        started = time.monotonic()
        pending: list[int] = []
        try:
            with _signals_deferred(pending):
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    # If this program is killed, a later program finds the processes that it left
                    # by this mark (parts/lock.py).
                    env={**self._environment(command), RUN_MARK: str(os.getpid())},
                    # A session of its own: Ctrl-C reaches this program alone.
                    start_new_session=True,
                )
        except FileNotFoundError:
            return Result(127, err=f"{argv[0]} is not installed")
        except PermissionError:
            return Result(126, err=f"{argv[0]} may not be run by this user")
        try:
            for number in pending:
                signal.raise_signal(number)
            out, err = _communicate(process, command.stdin, timeout, show)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the command and its children
            process.communicate()
            return Result(124, err=f"stopped after {timeout:.0f} s", seconds=timeout)
        except BaseException:
            self._end(process)
            raise
        seconds = time.monotonic() - started
        return Result(
            process.returncode, _TERMINAL_CODE.sub("", out), _TERMINAL_CODE.sub("", err), seconds
        )

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        timeout = command.timeout_seconds or RUN_SECONDS
        started, lines = time.monotonic(), []
        shown = self.display.command(f"$ {command}")
        with shown, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                env={**self._environment(command), RUN_MARK: str(os.getpid())},
                start_new_session=True,
            )
            limit = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
            limit.start()
            try:
                for line in process.stdout or ():
                    lines.append(line)
                    self.display.progress(form(line.rstrip()))
                code = process.wait()
            except BaseException:
                self._end(process)
                raise
            finally:
                limit.cancel()
            errors.seek(0)
            error_text = errors.read()
        return Result(
            code, "".join(lines), _TERMINAL_CODE.sub("", error_text), time.monotonic() - started
        )

    def _end(self, process: subprocess.Popen[str]) -> None:
        """End a command and its children: SIGTERM first, and SIGKILL after STOP_SECONDS."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=STOP_SECONDS)
                return

    def start(self, command: Command, log: Path) -> None:
        self.display.effect(f"$ {command} >{log} 2>&1 &")
        with log.open("ab") as output:
            subprocess.Popen(
                command.argv,
                env=self._environment(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )

    def write(self, path: Path, content: str, mode: int) -> None:
        self.display.effect(f"wrote {path} (mode {mode:04o})")
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)

    def append(self, path: Path, line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def make_directory(self, path: Path, mode: int) -> None:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)  # the umask reduces the mode that mkdir sets

    def ask(self, question: Question) -> Answer:
        return https.ask(question)

    def clock(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def say(self, text: str) -> None:
        self.display.say(text)


class DryRunner(RealRunner):
    """Asks questions as RealRunner does, and prints each change instead of making it."""

    is_dry = True

    def run(self, command: Command) -> Result:
        self.say(f"    would run: {command}")
        return Result(0)

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        self.say(f"    would run: {command}")
        return Result(0)

    def start(self, command: Command, log: Path) -> None:
        self.say(f"    would start: {command} >{log} 2>&1 &")

    def write(self, path: Path, content: str, mode: int) -> None:
        self.say(f"    would write: {path} (mode {mode:04o}, {len(content)} bytes)")

    def append(self, path: Path, line: str) -> None:
        self.say(f"    would append to: {path}")

    def make_directory(self, path: Path, mode: int) -> None:
        if not path.is_dir():
            self.say(f"    would make: {path}/ (mode {mode:04o})")
