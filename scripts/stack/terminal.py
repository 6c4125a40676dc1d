"""Draws a story on a terminal: each step is a line that counts seconds and ends in colour.

The display redraws the line of the running step, and below it the last line of its command's
output. It prints everything else once. The cursor stays visible at the beginning of the next
line, so that a killed script leaves a usable terminal.
"""

import os
import select
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from stack import layout
from stack.display import Display, write_to

TICK_SECONDS = 0.25
# Chosen: the line of a shorter command could not be read.
QUIET_SECONDS = 0.5
# Chosen: a working terminal needs only milliseconds for a few lines.
STALLED_SECONDS = 0.5
NAME_WIDTH = 20  # `nginx configuration` is the longest step


def choose(*, is_verbose: bool) -> Display:
    """Return a display for the terminal, or for plain lines if there is no terminal or colour."""
    is_plain = (
        is_verbose
        or os.environ.get("NO_COLOR")
        or os.environ.get("TERM", "dumb") in {"", "dumb"}
        or not (sys.stdout and sys.stdout.isatty())
    )
    return Display() if is_plain else Terminal()


@dataclass
class _Step:
    name: str
    begun: float
    notes: list[str] = field(default_factory=list)


@dataclass
class _Command:
    text: str
    begun: float
    output: str = ""


def _discard(_: str) -> None:
    """Print nothing: on a terminal, plain lines go only into the log of the attempt."""


class Terminal(Display):
    """Draws steps in place; several threads may print."""

    def __init__(self) -> None:
        super().__init__(_discard)
        # Reentrant: a signal may interrupt the main thread here, and the story then prints again.
        self._lock = threading.RLock()
        self._descriptor = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self._step: _Step | None = None
        self._command: _Command | None = None
        self._live: list[str] = []  # lines on the screen that are redrawn
        self._ticker: threading.Thread | None = None

    @property
    def width(self) -> int:
        """Return the current columns of the terminal, which a person may resize."""
        return shutil.get_terminal_size().columns

    def say(self, text: str) -> None:
        """Print lines, folded; the lines of a step follow its result."""
        super().say(text)
        with self._lock:
            if self._step:
                self._step.notes += text.split("\n")
            else:
                self._print_lines(layout.fold_indented(text, self.width))

    def begin_step(self, name: str, elapsed: float) -> None:
        """Draw the step's line and start counting its seconds."""
        super().begin_step(name, elapsed)
        self._step = _Step(name, time.monotonic())
        self._draw_live()
        self._start_ticker()

    def end_step(self, result: str, seconds: float) -> None:
        """Replace the step's line with its result and its time."""
        super().end_step(result, seconds)
        self._finish_step("ok", layout.GREEN, result, seconds)

    def fail_step(self, result: str, seconds: float) -> None:
        """Replace the step's line with its failure; the error follows at the end of the story."""
        super().fail_step(result, seconds)
        self._finish_step("!!", layout.RED, result, seconds)

    def _finish_step(self, mark: str, colour: str, result: str, seconds: float) -> None:
        with self._lock:
            step = self._step
            if step is None:
                return
            time_text = f"{seconds:.1f} s"
            label = _label(mark, step.name, time_text)
            first, *others = layout.fold_beside(label, result, self.width)
            lines = [_painted(first, colour, time_text), *others]
            notes = layout.fold_indented("\n".join(step.notes), self.width) if step.notes else []
            self._step = None
            self._print_lines([*lines, *notes])

    @contextmanager
    def command(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show the command and then its output, dimmed until the command ends."""
        with super().command(text):
            self._command = _Command(text, time.monotonic())
            self._start_ticker()
            try:
                yield self._show
            finally:
                self._command = None
                self._draw_live()

    def _show(self, line: str) -> None:
        """Keep a line of a command's output for the ticker to draw; never wait."""
        command = self._command
        if command and line.strip():
            command.output = line

    def progress(self, text: str) -> None:
        """Show a line under the step, or print it if no step runs."""
        super().progress(text)
        if self._step:
            self._show(text)
        else:
            self._print_lines(layout.fold_indented(f"    {text}", self.width))

    def status_row(self, *, is_well: bool, name: str, text: str) -> None:
        """Print a row of `status.sh`, in red if it is not ok."""
        super().status_row(is_well=is_well, name=name, text=text)
        mark = "ok" if is_well else "!!"
        first, *others = layout.fold_beside(f"{mark}  {name:<16} ", text, self.width)
        if is_well:
            self._print_lines([layout.paint(mark, layout.GREEN) + first[len(mark) :], *others])
        else:
            self._print_lines([layout.paint(line, layout.RED) for line in (first, *others)])

    def report(self, text: str) -> None:
        """Erase the line of a running step, and print to standard error."""
        self._step = self._command = None
        self._draw_live()
        if not sys.stderr.isatty():
            super().report(text)
            return
        self.log.write(text)
        lines = []
        for line in text.split("\n"):
            word, colon, _ = line.partition(":")
            colour = {"error": layout.RED, "HINT": layout.YELLOW, "RUNBOOK": layout.CYAN}.get(word)
            first, *others = layout.fold_indented(line, self.width)
            if colour and colon:
                first = layout.paint(f"{word}:", colour) + first[len(word) + 1 :]
            lines += [first, *others]
        write_to(sys.stderr, "".join(f"{line}\n" for line in lines))

    def table_row(self, cells: Sequence[tuple[str, str]]) -> None:
        """Print one row of cells in their colours; the caller fits them to `width`."""
        line = "".join(layout.paint(text, colour) if colour else text for text, colour in cells)
        self._print_lines([line])

    def _live_lines(self) -> list[str]:
        """Return the lines to redraw: the step's, and its command's."""
        now, width, lines = time.monotonic(), self.width - 1, []
        step, command = self._step, self._command
        if step:
            time_text = f"{int(now - step.begun)} s"
            label = layout.clip(_label("..", step.name, time_text).rstrip(), width)
            lines.append(_painted(label, layout.CYAN, time_text))
        if command and now - command.begun >= QUIET_SECONDS:
            shown = layout.printable(command.output or command.text).strip()
            if step is None:
                shown = f"{int(now - command.begun)} s  {shown}"
            lines.append(layout.paint(layout.clip(f"    {shown}", width), layout.DIM))
        return lines

    def _draw_live(self) -> None:
        """Draw changes; skip this while the terminal accepts no output, for example after Ctrl-S.

        Otherwise the ticker would wait while it holds the lock, and a command could not end.
        """
        if self._lock.acquire(timeout=STALLED_SECONDS):
            try:
                live = self._live_lines()
                if live != self._live:
                    self._draw([], live)
            finally:
                self._lock.release()

    def _print_lines(self, lines: Sequence[str]) -> None:
        """Print lines above those that the display redraws."""
        with self._lock:
            self._draw(lines, self._live_lines())

    def _draw(self, lines: Sequence[str], live: list[str]) -> None:
        up = f"\x1b[{len(self._live)}A" if self._live else ""
        text = "".join(f"\x1b[K{line}\n" for line in [*lines, *live])
        self._put(f"\r{up}{text}\x1b[J")
        self._live = live

    def _put(self, text: str) -> None:
        """Bypass Python's buffers: a thread that waits inside a buffer would block the exit."""
        data = text.encode(self._encoding, "replace")
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # another program made the terminal non-blocking
                    select.select([], [self._descriptor], [])
        except OSError:  # the terminal is gone; the story continues
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._descriptor)

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="display", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        """Redraw the seconds regularly."""
        while True:
            time.sleep(TICK_SECONDS)
            self._draw_live()


def _label(mark: str, name: str, time_text: str) -> str:
    return f"{mark}  {name:<{NAME_WIDTH}} {time_text:>8}  "


def _painted(line: str, colour: str, time_text: str) -> str:
    """Return a step's line with its mark and time in colour; a failure's line is all in colour."""
    if colour == layout.RED:
        return layout.paint(line, colour)
    name, _, result = line[2:].partition(time_text)
    return layout.paint(line[:2], colour) + name + layout.paint(time_text, layout.CYAN) + result
