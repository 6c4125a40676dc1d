"""Answers a program's questions at a terminal, as a person does."""

import os
import pty
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path


def at_terminal(
    block: str, answers: Mapping[str, str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> tuple[int, str]:
    """Run a shell block and answer each question once; return the exit code and the output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe("bash", ["bash", "-euo", "pipefail", "-c", block], dict(env))  # noqa: S606
    waiting, shown, deadline = dict(answers), "", time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # on Linux, the program has closed the terminal
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
            asked = next(
                (question for question in waiting if shown.rstrip("\r\n").endswith(question)), None
            )
            if asked is not None:
                os.write(terminal, f"{waiting.pop(asked)}\n".encode())
        os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"not done after {timeout} s:\n{shown}")
    finally:
        os.close(terminal)
