"""The only module that runs commands, writes files and queries the front door; decides nothing."""

import errno
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from stack import https
from stack.commands import engine
from stack.commands.command import Command
from stack.display import Display
from stack.failure import Failure
from stack.https import Answer, Question

EVIDENCE_LINES = 25
# Time limits for commands without their own: for a query, and for a change.
READ_SECONDS = 30.0
RUN_SECONDS = 600.0
# The runbook entry for a failed command: it starts with the state of the engine and the containers.
# A story with an undo names its own entry instead.
ANY_ENTRY = "site-down"
RUN_MARK = "SLIPWAY_RUN"
STOP_SECONDS = 15.0
PIPE_BYTES = 64 * 1024  # the size of a pipe's buffer on Linux
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
    """The queries and the effects that a story may have.

    `is_dry`: the runner only prints effects, so a story must not wait for them.
    """

    is_dry: bool

    @property
    def display(self) -> Display:
        """Return the display that prints the story's lines."""

    def read(self, command: Command) -> Result:
        """Run a command that changes nothing; raise Failure at a code that is not a result."""

    def run(self, command: Command) -> Result:
        """Print a command that changes something, and run it.

        Raises:
            Failure: at an exit code that the command does not name as a result.
        """

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        """Run a long command and print each line as it arrives; a failure is a Result."""

    def start(self, command: Command, log: Path) -> None:
        """Start a program that outlives this one, in its own session."""

    def write(self, path: Path, content: str, mode: int) -> None:
        """Write a file atomically, with this mode."""

    def append(self, path: Path, line: str) -> None:
        """Append a line to a file and sync it to disk."""

    def make_directory(self, path: Path, mode: int) -> None:
        """Create a directory and its parents."""

    def ask(self, question: Question) -> Answer:
        """Send a request to the front door."""

    def clock(self) -> float:
        """Return monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def say(self, text: str) -> None:
        """Print a text for the user."""


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-EVIDENCE_LINES:])


def failure_of(command: Command, result: Result) -> Failure:
    """Return the failure of a command; a story may name a more specific runbook entry."""
    return Failure(
        f"`{shlex.join(command.argv)}` exited with {result.code} after {result.seconds:.1f} s",
        hints=["the lines above are the last ones of its output"],
        runbook=ANY_ENTRY,
        evidence=_last_lines(result.out + "\n" + result.err),
    )


def accepted(command: Command, result: Result) -> Result:
    """Return the result if the command accepts its exit code; raise Failure otherwise."""
    if not command.accepts(result.code):
        raise failure_of(command, result)
    return result


@contextmanager
def _signals_deferred(pending: list[int]) -> Iterator[None]:
    """Defer signals while a command starts: without its process id it could not be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers only in the main thread
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


def _start(
    command: Command,
    environment: Mapping[str, str],
    out: IO[Any] | int = subprocess.PIPE,
    err: IO[Any] | int = subprocess.PIPE,
    *,
    is_detached: bool = False,
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that Ctrl-C reaches only this program."""
    return subprocess.Popen(
        command.argv,
        stdin=subprocess.PIPE if err == subprocess.PIPE else subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
        cwd="/" if is_detached else None,
    )


def _not_started(program: str, error: OSError) -> Result:
    """Return the result that a shell gives for a program that cannot start: 127 or 126."""
    is_file = "/" in program and Path(program).is_file()
    if isinstance(error, FileNotFoundError):
        reason = "names an interpreter in its first line that is not installed"
        return Result(127, err=f"{program} {reason if is_file else 'is not installed'}")
    if error.errno == errno.ENOEXEC:
        return Result(126, err=f"{program} has no first line that names an interpreter: #!/bin/sh")
    if isinstance(error, PermissionError):
        return Result(126, err=f"{program} may not be run by this user")
    return Result(126, err=f"{program} cannot be started: {error.strerror or error}")


def _await_end(
    process: subprocess.Popen[str],
    files: Sequence[IO[bytes]],
    timeout: float,
    show: Callable[[str], None] | None,
) -> tuple[str, str]:
    """Wait for the end of a command that writes into files; return their content."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            process.wait(min(left, SHOW_SECONDS))
        except subprocess.TimeoutExpired:
            if left <= SHOW_SECONDS:
                raise
            if show and (line := _last_line(_content(files[0]))):
                show(line)
        else:
            out, err = (_content(file).decode(errors="replace") for file in files)
            return out, err


def _content(file: IO[bytes]) -> bytes:
    # Not `read`: it would move the file's position, at which a process in the background writes.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


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
    """Write the whole input at once: a second `communicate` would not continue it."""
    if process.stdin:
        with suppress(BrokenPipeError):  # a program may exit without reading its input
            process.stdin.write(stdin)
            process.stdin.close()
        process.stdin = None


def _last_line(output: bytes) -> str:
    """Return the last non-empty line; a program may overwrite its progress with \\r."""
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

    def _environment(self, command: Command, *, is_marked: bool = True) -> dict[str, str]:
        """Return a command's variables; by the mark, parts/lock.py finds processes after a kill."""
        mark = {RUN_MARK: str(os.getpid())} if is_marked else {}
        return {**self._variables(command), **mark, **command.env}

    def read(self, command: Command) -> Result:
        return accepted(command, self._read_directly(command) or self._run(command, READ_SECONDS))

    def _read_directly(self, command: Command) -> Result | None:
        """Run a query in a container through the engine, which answers sooner than Compose.

        Returns:
            None for other commands, and where the engine refuses: Compose also finds a container
            that has another name, and names the service that does not run.
        """
        project = self._variables(command).get("COMPOSE_PROJECT_NAME", "")
        argv = engine.direct_exec(command.argv, project)
        if not argv:
            return None
        result = self._run(replace(command, argv=argv), READ_SECONDS)
        return None if result.err.startswith(engine.DAEMON_ERROR) else result

    def run(self, command: Command) -> Result:
        with self.display.command(f"$ {command}") as show:
            return accepted(command, self._run(command, RUN_SECONDS, show))

    def _run(
        self, command: Command, default_seconds: float, show: Callable[[str], None] | None = None
    ) -> Result:
        timeout = command.timeout_seconds or default_seconds
        started = time.monotonic()
        pending: list[int] = []
        with ExitStack() as stack:
            try:
                # A process in the background may keep a pipe open; a file can be read at any time.
                count = 2 if command.ends_alone else 0
                files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
                with _signals_deferred(pending):
                    process = _start(command, self._environment(command), *files)
            except OSError as error:
                return _not_started(command.argv[0], error)
            try:
                for number in pending:
                    signal.raise_signal(number)
                if files:
                    out, err = _await_end(process, files, timeout, show)
                else:
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
            try:
                process = _start(command, self._environment(command), subprocess.PIPE, errors)
            except OSError as error:
                return _not_started(command.argv[0], error)
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
            with suppress(ProcessLookupError):  # the process has exited
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=STOP_SECONDS)
                return

    def start(self, command: Command, log: Path) -> None:
        self.display.effect(f"$ {command} >{log} 2>&1 &")
        with log.open("ab") as output:
            try:
                variables = self._environment(command, is_marked=False)
                _start(command, variables, output, output, is_detached=True)
            except OSError as error:
                raise failure_of(command, _not_started(command.argv[0], error)) from None

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
