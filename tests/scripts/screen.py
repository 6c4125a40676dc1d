"""A terminal for tests: a real pseudo-terminal, and an emulation of its screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.scripts.conftest import ROOT

CODE = re.compile(r"\x1b\[(\d*(?:;\d+)*)([A-Za-z])")


@dataclass
class Screen:
    """The lines that a terminal shows now, and the lines of each earlier frame.

    The emulation knows the few codes that the display may write. Any other code fails the test, for
    example a code that hides the cursor or switches to another screen.
    """

    columns: int
    lines: list[list[tuple[str, str]]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    style: str = ""
    wrapped: int = 0
    frames: list[list[str]] = field(default_factory=list)

    def feed(self, text: str) -> None:
        """Apply the written text and codes to the screen."""
        while text:
            code = CODE.match(text)
            if code:
                self._obey(code[1], code[2])
                text = text[code.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _obey(self, number: str, letter: str) -> None:
        if letter == "m":
            self.style = "" if number in {"", "0"} else number
        elif letter == "A":
            self.row -= int(number or 1)
            assert self.row >= 0, "the cursor went above the screen"
        elif letter == "K":
            del self.lines[self.row][self.column :]
        elif letter == "J":
            del self.lines[self.row][self.column :]
            del self.lines[self.row + 1 :]
            self.frames.append(self.text())
        else:
            raise AssertionError(f"a code that the display must not write: {number}{letter}")

    def _put(self, character: str) -> None:
        assert character != "\x1b", "a code that the emulation cannot read"
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append([])
        else:
            if self.column == self.columns:
                self.wrapped += 1
                self._put("\r")
                self._put("\n")
            line = self.lines[self.row]
            line += [(" ", "")] * (self.column - len(line))
            line[self.column : self.column + 1] = [(character, self.style)]
            self.column += 1

    def text(self) -> list[str]:
        """Return the lines without their colours."""
        return ["".join(character for character, _ in line).rstrip() for line in self.lines]

    def style_of(self, word: str) -> set[str]:
        """Return the colours in which a word appears on the screen."""
        styles = set()
        for line in self.lines:
            text = "".join(character for character, _ in line)
            for place in (match.start() for match in re.finditer(re.escape(word), text)):
                styles |= {style for _, style in line[place : place + len(word)]}
        return styles


@dataclass
class Session:
    """A program on a terminal; `written` is its output so far."""

    process: subprocess.Popen[bytes]
    terminal: int
    columns: int
    written: str = ""
    pending: bytes = b""

    def read_until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Read the program's output until the condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"no {what} in {self.written!r}"
            assert self._read(), f"the program ended without {what}: {self.written!r}"

    def finish(self, seconds: float = 60) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"the program does not end: {self.written!r}"
        return self.process.wait(10)

    def _read(self) -> bool:
        if not select.select([self.terminal], [], [], 0.2)[0]:
            return True
        try:
            self.pending += os.read(self.terminal, 65536)
        except OSError:  # on Linux, the other end of the terminal is closed
            return False
        text = self.pending.decode(errors="ignore")
        self.pending = self.pending[len(text.encode()) :]
        self.written += text
        return True

    def resize(self, columns: int) -> None:
        """Change the width, as a person who resizes the window does."""
        _set_columns(self.terminal, columns)

    def screen(self) -> Screen:
        """Return the screen after all output so far."""
        screen = Screen(self.columns)
        screen.feed(self.written)
        return screen


def _set_columns(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def heed_signals() -> None:
    """Heed Ctrl-C and a hang-up; the background of a shell, or `nohup`, ignores them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def on_terminal(
    argv: Sequence[str], *, columns: int = 100, env: dict[str, str], cwd: Path = ROOT
) -> Iterator[Session]:
    """Run a program on a terminal during the block; kill the program at the end."""
    ours, theirs = pty.openpty()
    _set_columns(ours, columns)
    try:
        process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm", **env},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=heed_signals,  # noqa: PLW1509
        )
    finally:
        os.close(theirs)
    session = Session(process, ours, columns)
    try:
        yield session
    finally:
        process.kill()
        process.wait(10)
        if session.terminal >= 0:
            os.close(session.terminal)
