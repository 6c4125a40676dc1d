"""A runner that only prints the effects of a story: `--dry-run`."""

from collections.abc import Callable
from pathlib import Path

from stack.commands.command import Command
from stack.runner import RealRunner, Result


class DryRunner(RealRunner):
    """Runs queries like RealRunner, but prints each change instead of making it."""

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
