"""A runner that records a story's commands, replies from a table, and never sleeps."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from stack.commands.command import Command
from stack.display import Display
from stack.https import Answer, Question
from stack.runner import RealRunner, Result, accepted

Reply = Result | Callable[[], Result]
# The recording runner runs these commands, which change files in the test's directory.
FILE_COMMANDS = ("chmod", "cp", "ln", "mv", "rm")
# A host without other stacks, on which each secret opens its data, and each volume is empty.
QUIET_HOST = (
    ("docker version", Result(0, "26.1.5\n")),
    ("docker container ls", Result(0)),
    ("docker volume ls", Result(0)),
    ("IFS= read -r", Result(0)),
    ("/volumes", Result(0, "100\n")),
    ("docker compose config --format json", Result(0)),
    ("docker info", Result(0, "/\n")),
    ("docker image inspect --format '{{.Id}}' p:1", Result(0, "sha256:p\n")),
    ("docker image inspect --format '{{.Id}}' slipway/app-nginx:current", Result(0, "sha256:n\n")),
    ("docker network ls", Result(0, "bridge\nslipway_edge\nslipway_data\nslipway_egress\n")),
    ("docker container list", Result(0)),
    ("docker inspect --format '{{json .}}'", Result(1)),
)


@dataclass
class RecordingRunner:
    """Records commands, and runs only git queries and FILE_COMMANDS.

    A command gets the newest reply whose text occurs in the command. A query to the engine without
    a reply is a mistake in the test; any other command without a reply succeeds.
    """

    is_dry: bool = False
    replies: list[tuple[str, Reply]] = field(default_factory=lambda: list(QUIET_HOST))
    door: Callable[[Question], Answer] = lambda _: Answer(0, error="connection refused")
    asked: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    now: float = 0.0
    files: RealRunner = field(default_factory=RealRunner)

    @property
    def display(self) -> Display:
        return Display(self.said.append)

    def reply(self, part: str, reply: Reply) -> None:
        self.replies.append((part, reply))

    def _find(self, command: str) -> Result | None:
        for part, reply in reversed(self.replies):
            if part in command:
                return reply if isinstance(reply, Result) else reply()
        return None

    def read(self, command: Command) -> Result:
        self.asked.append(shlex.join(command.argv))
        return self._reply_to(command)

    def _reply_to(self, command: Command) -> Result:
        if command.argv[0] == "git":
            return self.files.read(command)
        text = shlex.join(command.argv)
        answer = self._find(text)
        assert answer is not None, f"the test defines no reply to `{text}`"
        return accepted(command, answer)

    def run(self, command: Command) -> Result:
        text = shlex.join(command.argv)
        self.ran.append(text)
        self.environments.append(dict(command.env))
        self.inputs.append(command.stdin)
        result = Result(0) if self.is_dry else self._find(text) or self._work_on_files(command)
        return accepted(command, result)

    def follow(self, command: Command, form: Callable[[str], str] = str) -> Result:
        result = self.run(replace(command, may_fail=True))
        self.said += [form(line) for line in result.out.splitlines()]
        return result

    def _work_on_files(self, command: Command) -> Result:
        return self.files.read(command) if command.argv[0] in FILE_COMMANDS else Result(0)

    def start(self, command: Command, log: Path) -> None:
        self.ran.append(shlex.join(command.argv))
        self.environments.append(dict(command.env))

    def write(self, path: Path, content: str, mode: int) -> None:
        self.written.append(path)
        if not self.is_dry:
            self.files.write(path, content, mode)

    def append(self, path: Path, line: str) -> None:
        self.written.append(path)
        if not self.is_dry:
            self.files.append(path, line)

    def make_directory(self, path: Path, mode: int) -> None:
        if not self.is_dry:
            self.files.make_directory(path, mode)

    def ask(self, question: Question) -> Answer:
        return self.door(question)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def say(self, text: str) -> None:
        self.said.append(text)

    def position(self, part: str) -> int:
        """Return the index of the only command that contains this text."""
        places = [place for place, command in enumerate(self.ran) if part in command]
        assert len(places) == 1, f"{part!r} was run {len(places)} times in {self.ran}"
        return places[0]

    def has_run(self, part: str) -> bool:
        return any(part in command for command in self.ran)
