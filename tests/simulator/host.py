"""The simulated host: an engine, a checkout, a disk, a clock, clients and waiting processes."""

import pickle
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from stack.commands.command import Command
from stack.https import Answer, Question
from stack.parts.watch import MARK
from stack.runner import Result

from tests.simulator import files
from tests.simulator.clock import Clock
from tests.simulator.compose_commands import ComposeCommands, ports_of
from tests.simulator.containers import Container, Engine
from tests.simulator.database import Database
from tests.simulator.deployments import Deployments
from tests.simulator.docker_commands import DockerCommands, copy_files
from tests.simulator.files import Files
from tests.simulator.programs import accepts

NOT_FOUND = 127
PROJECT = "slipway"  # the project whose site the clients use
FILE_PROGRAMS = ("chmod", "cp", "ln", "mv", "rm")


@dataclass
class Scheduled:
    """A process that waits for the end of a rollback window."""

    at: float
    arguments: list[str]
    place: str


@dataclass
class Clients:
    """The requests of clients and their answers; a client sends one write after each step."""

    acknowledged: int = 0
    failed: int = 0


@dataclass
class State:
    """The state of the host besides its files, for a copy."""

    engine: Engine = field(default_factory=Engine)
    scheduled: list[Scheduled] = field(default_factory=list)
    clients: Clients = field(default_factory=Clients)
    booted_at: float = -3600.0
    is_disk_full: bool = False
    place: str = "checkout"  # the folder of the checkout in which the operator works
    home: str = "checkout"  # the folder of the checkout that owns the stack
    machine: str = "0" * 32  # its id
    variant: int = 1
    names: dict[str, str] = field(default_factory=dict)  # r2 -> the release of the second edit
    releases: dict[str, str] = field(default_factory=dict)  # place -> the release of its checkout
    secrets: dict[str, str] = field(default_factory=dict)  # the operator's copy of the secrets
    applied: list[str] = field(default_factory=list)  # each migration that was ever applied
    phases: dict[str, str] = field(default_factory=dict)  # migration -> pre or post
    deployments: Deployments = field(default_factory=Deployments)


@dataclass(frozen=True)
class Copy:
    """A host at one moment; a history begins from it."""

    state: bytes
    files: Files


class Host:
    """One machine, below one folder: `checkout/`, perhaps other checkouts, and `state/`."""

    project = PROJECT

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.use(State())

    @classmethod
    def bare(cls, folder: Path) -> "Host":
        """Make a machine with a checkout and nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        host = cls(folder)
        files.make_checkout(host.root)
        return host

    def use(self, state: State) -> None:
        """Continue from a state."""
        self.state = state
        self.engine = state.engine
        self.go(state.place)

    def go(self, place: str) -> None:
        """Change to a checkout, in which the next commands run."""
        self.state.place = place
        self.root = self.folder / place
        self.docker = DockerCommands(self.engine, self.root)
        self.compose = ComposeCommands(self.engine, self.root)

    @property
    def clock(self) -> Clock:
        """The clock of the machine."""
        return self.engine.clock

    def copy(self) -> Copy:
        """Copy the whole host."""
        return Copy(pickle.dumps(self.state), files.copy_of(self.folder))

    def put_back(self, copy: Copy) -> None:
        """Restore the host from a copy."""
        files.put_back(self.folder, copy.files)
        self.use(pickle.loads(copy.state))  # noqa: S301 - made by this process

    def answer(self, command: Command) -> Result:
        """Run a command of a story, without any fault."""
        self.engine.end_drained()
        program = command.argv[0]
        if program == "docker":
            is_compose = command.argv[1] == "compose"
            return (self.compose if is_compose else self.docker).answer(command)
        if program in FILE_PROGRAMS:
            return copy_files(command.argv)
        if program == "git":
            return Result(128, err="fatal: not a git repository")
        if program in {"apt-config", "gpg", "systemctl", "dockerd"}:
            return Result(0)
        return Result(NOT_FOUND, err=f"{shlex.join(command.argv)}: not simulated")

    def ask(self, question: Question) -> Answer:
        """Answer at the front door, on the port and for the host that nginx was started with."""
        nginx = self._listener(question.port)
        if nginx is None:
            return Answer(0, error="Connection refused")
        if question.host != self.engine.certificate and question.trust is not None:
            return Answer(0, error="certificate verify failed: Hostname mismatch")
        if question.host != nginx.host:
            return Answer(0, error="Remote end closed connection without response")
        slot = self.engine.link(nginx.project)
        answer = self.compose.programs.slot_answer(
            nginx.project, slot, question.path, question.host
        )
        named = answer.headers.get("X-Slipway-Slot", "")
        self.engine.traffic_of(nginx.project).add(
            named,
            answer.status,
            watch=question.headers.get(MARK, ""),
            is_counted=self.compose.programs.is_counted(nginx.project),
        )
        return answer

    def _listener(self, port: int) -> Container | None:
        for (_, service), container in self.engine.containers.items():
            is_nginx = service == "nginx" and container.is_well
            if is_nginx and str(port) == ports_of(container)[1]:
                return container
        return None

    def serving(self) -> Container | None:
        """Return the API container that clients reach, if it answers their requests."""
        project = self.project
        container = self.live_container(project)
        nginx = self.engine.container(project, "nginx")
        if nginx is None or not nginx.is_well or container is None or not container.is_well:
            return None
        name = nginx.host
        if name != self.engine.certificate or not accepts(container, name):
            return None
        return container if self.compose.programs.can_use_database(container) else None

    def live_container(self, project: str) -> Container | None:
        """Return the API container of the slot that the link names."""
        return self.engine.container(project, f"api-{self.engine.link(project)}")

    def write_as_client(self) -> bool:
        """Send one write to the front door; return whether it was acknowledged."""
        container = self.serving()
        if container is None:
            self.state.clients.failed += 1
            return False
        self.state.deployments.see(self.engine, container)
        database = self.engine.database(container.project)
        assert database is not None
        database.rows += 1
        self.state.clients.acknowledged += 1
        return True

    def note_migrations(self) -> None:
        """Record the applied migrations, so that their loss is noticed."""
        database = self.database()
        for revision in database.applied if database else []:
            if revision not in self.state.applied:
                self.state.applied.append(revision)

    def database(self) -> Database | None:
        """Return the database of the project."""
        return self.engine.database(self.project)

    def stop_all(self) -> None:
        """Stop every container by hand."""
        for container in self.engine.containers.values():
            self.engine.stop(container)

    def restart_engine(self, *, is_reboot: bool) -> None:
        """Restart the engine or the machine: containers that nobody stopped by hand run again."""
        for container in self.engine.containers.values():
            was_up = container.state in {"running", "restarting"}
            if was_up and not container.is_stopped_by_hand:
                self.engine.begin(container)
            elif was_up:
                container.state, container.health, container.ends_at = "exited", "", None
        if is_reboot:
            self.clock.advance(60)
            self.state.scheduled.clear()
            self.state.booted_at = self.clock.now
