"""Runs a script's story with one fault at one of its steps; stands in the place of `python3`.

The story, its commands and its files are the real ones. Only the runner differs: it counts the
steps as tests/simulator/runner.py does, keeps a record of them, and strikes at one.
"""

import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

# The folder of this file holds modules with names of others.
sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]
sys.path.append(str(Path(__file__).parents[2]))

from stack import __main__ as command_line  # noqa: E402
from stack.commands.command import Command  # noqa: E402
from stack.runner import RealRunner, Result, accepted  # noqa: E402

from tests.simulator import faults  # noqa: E402
from tests.simulator.kinds import kind_of  # noqa: E402

PLAN = "STRUCK_PYTHON"  # the variable with the facts that tests/stack/real_host.py gives


class StruckRunner(RealRunner):
    """Carries out a story's steps, and strikes at one of them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        plan = json.loads(os.environ[PLAN])
        self.folder, self.project = Path(plan["folder"]), str(plan["project"])
        self.record = Path(plan["record"])
        self.mode: str
        self.kind: str
        self.place: int
        self.mode, self.kind, self.place = plan["strike"] or ("", "", 0)
        self.kinds: list[str] = []

    def run(self, command: Command) -> Result:
        free = replace(command, may_fail=True)
        result = self._step(shlex.join(command.argv), lambda: RealRunner.run(self, free))
        return accepted(command, result)

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        return self._step(shlex.join(command.argv), lambda: RealRunner.follow(self, command, form))

    def start(self, command: Command, log: Path) -> None:
        def begin() -> Result:
            RealRunner.start(self, command, log)
            return Result(0)

        self._step(f"start {shlex.join(command.argv)}", begin)

    def write(self, path: Path, content: str, mode: int) -> None:
        def put() -> Result:
            RealRunner.write(self, path, content, mode)
            return Result(0)

        self._write_step(f"write {self._short(path)}", path, put)

    def append(self, path: Path, line: str) -> None:
        def put() -> Result:
            RealRunner.append(self, path, line)
            return Result(0)

        self._write_step(f"append to {self._short(path)}", path, put, line[: len(line) // 2])

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _step(self, text: str, work: Callable[[], Result]) -> Result:
        """Do one step, as its fault allows."""
        mode = self._note(text)
        if mode == faults.KILLED_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == faults.FAILS:
            return Result(1, err="the reason")
        result = work()
        if mode == faults.KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == faults.STOPPED:
            signal.raise_signal(signal.SIGTERM)
        if mode == faults.FAILS_AFTER:
            return Result(1, err="the reason")
        return result

    def _note(self, text: str) -> str:
        """Add a step to the record; return the fault that strikes it, or an empty text."""
        self.kinds.append(kind_of(text, str(self.folder), self.project))
        is_due = (self.kinds[-1], self.kinds.count(self.kind)) == (self.kind, self.place)
        entry = {"step": text, "kind": self.kinds[-1], "is_struck": is_due}
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return self.mode if is_due else ""

    def _write_step(self, text: str, path: Path, put: Callable[[], Result], half: str = "") -> None:
        """Write a file; a failing append leaves a half line, as a full disk does."""
        if self._step(text, put).code == 0:
            return
        if half:
            with path.open("a", encoding="utf-8") as file:
                file.write(half)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))


if __name__ == "__main__":
    assert sys.argv[1:3] == ["-m", "stack"], sys.argv
    sys.argv[:] = ["stack", *sys.argv[3:]]
    with patch.object(command_line, "RealRunner", StruckRunner):
        sys.exit(command_line.main())
