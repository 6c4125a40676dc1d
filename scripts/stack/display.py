"""Prints what a story reports, as plain lines for a pipe; `terminal.py` draws it on a terminal."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from stack.attempt_log import AttemptLog


def write_to(stream: TextIO | None, text: str) -> None:
    """Write to standard output or standard error; ignore a closed pipe or terminal.

    A dropped connection must not end a story: later output then goes to /dev/null. A character
    that the stream's encoding lacks becomes a question mark.
    """
    if stream is None:  # the caller closed it: >&-
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_line(text: str) -> None:
    """Print to standard output."""
    write_to(sys.stdout, text + "\n")


class Display:
    """Prints each line at once, and keeps a copy in the log of the attempt."""

    def __init__(self, write: Callable[[str], None] = print_line) -> None:
        self.log = AttemptLog()
        self._write = write

    @property
    def width(self) -> int:
        """Return the columns of the terminal, or 0 for plain lines."""
        return 0

    def say(self, text: str) -> None:
        """Print lines of the story."""
        self.log.write(text)
        self._write(text)

    def begin_step(self, name: str, elapsed: float) -> None:
        """Print that a step begins, `elapsed` seconds after the story began."""
        self._print(f"==> {name} [{elapsed:.1f} s]")

    def end_step(self, result: str, seconds: float) -> None:
        """Print the result of a step."""
        self._print(f"    {result} ({seconds:.1f} s)")

    def fail_step(self, result: str, seconds: float) -> None:
        """Log that a step failed or was stopped; the error follows at the end of the story."""
        self.log.write(f"    {result} ({seconds:.1f} s)")

    @contextmanager
    def command(self, text: str) -> Iterator[Callable[[str], None]]:
        """Print a command before it runs; yield a function that shows a line of its output."""
        self._print(f"    {text}")
        yield lambda _: None

    def effect(self, text: str) -> None:
        """Print an effect that takes no time, such as a written file."""
        self._print(f"    {text}")

    def progress(self, text: str) -> None:
        """Print a line of a command that reports its progress."""
        self._print(f"    {text}")

    def status_row(self, *, is_well: bool, name: str, text: str) -> None:
        """Print a row of `status.sh`."""
        self._print(f"{'ok ' if is_well else '!! '} {name:<16} {text}")

    def table_row(self, cells: Sequence[tuple[str, str]]) -> None:
        """Print a row of a table; on a terminal each cell has its colour."""
        self._write("".join(text for text, _ in cells).rstrip())

    def report(self, text: str) -> None:
        """Print to standard error."""
        self.log.write(text)
        write_to(sys.stderr, text + "\n")

    def _print(self, text: str) -> None:
        self.log.write(text)
        self._write(text)
