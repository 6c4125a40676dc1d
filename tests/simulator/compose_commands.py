"""The commands `docker compose ...` that the stories use, on the simulated engine."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from stack.commands.command import Command
from stack.rules import migrations
from stack.runner import Result

from tests.simulator import compose_files
from tests.simulator.containers import REFUSES, Container, Engine, Image
from tests.simulator.files import content_of
from tests.simulator.programs import Programs

OPTIONS = {"--detach", "--no-deps", "--wait", "--force-recreate", "--stop", "--force", "--rm"}
OPTIONS |= {"--no-recreate"}
OPTIONS |= {"--no-TTY", "--no-color", "--all", "--quiet", "--no-log-prefix"}
OPTIONS_WITH_VALUE = {"--wait-timeout", "--signal", "--tail", "--since", "--format", "--profile"}
OPTIONS_WITH_VALUE |= {"--env", "--name"}
START_SECONDS = 1.0
EX_CONFIG = 78
MIGRATE_SECONDS = 0.5


class ComposeCommands:
    """Answers `docker compose ...` for the project of a checkout's `.env`."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.environment_file = str(root / ".env")
        self.programs = Programs(engine, self)
        self.given: Mapping[str, str] | None = None  # `.env`, while a command of Compose runs

    def values(self, command: Command | None = None) -> Mapping[str, str]:
        """Return `.env` with the command's own variables over it."""
        values = compose_files.read(self.environment_file) if self.given is None else self.given
        return {**values, **command.env} if command and command.env else values

    @property
    def project(self) -> str:
        """The project that `.env` now names."""
        return self.values().get("COMPOSE_PROJECT_NAME") or "slipway"

    def answer(self, command: Command) -> Result:
        """Run a command of Compose."""
        argv = list(command.argv[2:])
        while argv[0] == "--profile":
            argv = argv[2:]
        method = getattr(self, f"_{argv[0]}", None)
        assert method is not None, f"the simulated Compose does not know `{command}`"
        self.given = self.values()
        try:
            if argv[0] != "version" and not self.given:
                return Result(1, err="set SLIPWAY_HOST in .env")
            result: Result = method(argv[1:], command)
        finally:
            self.given = None
        return result

    def _version(self, _: list[str], __: Command) -> Result:
        return Result(0, "2.26.1\n")

    def _config(self, argv: list[str], command: Command) -> Result:
        """Check the files; as JSON, return the definition of each service."""
        if "json" not in argv:
            return Result(0)
        return Result(0, _definitions(tuple(self.values(command).items()), self.root))

    def _ps(self, argv: list[str], _: Command) -> Result:
        self.engine.end_drained()
        project = self.project
        mine = [c for (name, _), c in self.engine.containers.items() if name == project]
        if "--quiet" in argv:
            return Result(0, "".join(f"{c.identifier}\n" for c in mine if c.service == argv[-1]))
        return Result(0, "\n".join(map(describe, mine)))

    def _up(self, argv: list[str], command: Command) -> Result:
        names = words(argv)
        listed = compose_files.services()
        names = names or [name for name, service in listed.items() if not service.profiles]
        for name in names:
            error = self._create(name, command, is_new="--force-recreate" in argv)
            if error:
                return Result(1, err=error)
        project = self.project
        for name in names:
            container = self.engine.containers[project, name]
            if container.state != "running":
                error = self._port_fault(container) or self.engine.begin(container)
                if error:
                    return Result(1, err=error)
        if "--wait" not in argv:
            return Result(0)
        limit = float(argv[argv.index("--wait-timeout") + 1])
        self.engine.await_busy((self.engine.containers[project, name] for name in names), limit)
        weak = [name for name in names if not self.engine.containers[project, name].is_well]
        seconds = limit if weak else START_SECONDS
        self.engine.clock.advance(seconds)
        return Result(1, err=f"container {weak[0]} is unhealthy") if weak else Result(0)

    def _create(self, name: str, command: Command, *, is_new: bool) -> str:
        """Create a container, or replace a container whose image or configuration changed."""
        project, values = self.project, self.values(command)
        file = compose_files.services()[name]
        image = self.engine.image_of(compose_files.expand(file.image, values))
        if image is None:
            return f"No such image: {compose_files.expand(file.image, values)}"
        for secret in file.secrets:
            if not self.secret(secret).exists():
                return f"bind source path does not exist: {secret}"
        wanted = (
            image.identifier,
            compose_files.configuration(name, values, self.root),
            compose_files.environment_of(name, values),
        )
        present = self.engine.container(project, name)
        if present and "--no-recreate" in command.argv:
            return ""
        if (
            present
            and not is_new
            and wanted
            == (
                present.image,
                present.configuration,
                present.environment,
            )
        ):
            return ""
        if present:
            self.engine.stop(present)
            self.engine.remove(present)
        files = {secret: str(self.secret(secret)) for secret in file.secrets}
        self.engine.create(
            Container(f"c{self.engine.number()}", project, name, *wanted, str(self.root), files)
        )
        for volume in file.volumes:
            self.engine.volume(project, volume)
        return ""

    def _port_fault(self, container: Container) -> str:
        if container.service != "nginx":
            return ""
        for port in ports_of(container):
            if port in self.engine.used_ports or self._is_taken(port, container.project):
                return f"failed to bind host port {port}: address already in use"
        return ""

    def _is_taken(self, port: str, project: str) -> bool:
        return any(
            port in ports_of(container)
            for (name, service), container in self.engine.containers.items()
            if service == "nginx" and name != project and container.state == "running"
        )

    def secret(self, name: str) -> Path:
        """Return the file of a secret."""
        return compose_files.below(compose_files.secrets_folder(self.values(), self.root), name)

    def read_secret(self, name: str) -> str:
        """Return what a new container would read from a secret file."""
        content = content_of(f"{compose_files.secrets_folder(self.values(), self.root)}/{name}")
        return (content or b"").decode("utf-8").strip()

    def _named(self, argv: list[str]) -> list[Container]:
        named = [self.engine.container(self.project, name) for name in words(argv)]
        return [container for container in named if container]

    def _stop(self, argv: list[str], _: Command) -> Result:
        for container in self._named(argv):
            self.engine.stop(container)
        return Result(0)

    def _rm(self, argv: list[str], _: Command) -> Result:
        for container in self._named(argv):
            self.engine.stop(container)
            self.engine.remove(container)
        return Result(0)

    def _restart(self, argv: list[str], _: Command) -> Result:
        errors = []
        for container in self._named(argv):
            self.engine.stop(container)
            errors.append(self.engine.begin(container))
        return Result(1, err=max(errors)) if any(errors) else Result(0)

    def _kill(self, argv: list[str], _: Command) -> Result:
        for container in self._named(argv):
            if container.state != "running":
                return Result(1, err=f"container {container.service} is not running")
            self.engine.drain(container)
        return Result(0)

    def _logs(self, _: list[str], __: Command) -> Result:
        return Result(0, "the reason\n")

    def _exec(self, argv: list[str], command: Command) -> Result:
        service, *program = [word for word in argv if word != "--no-TTY"]
        container = self.engine.container(self.project, service)
        if container is None or container.state != "running":
            return Result(1, err=f'service "{service}" is not running')
        return self.programs.run(container, program, command.stdin)

    def _run(self, argv: list[str], command: Command) -> Result:
        """Run a one-shot container: the options, the service, its program."""
        place = 0
        while argv[place].startswith("--"):
            place += 2 if argv[place] in OPTIONS_WITH_VALUE else 1
        options, service, program = argv[:place], argv[place], argv[place + 1 :]
        file = compose_files.services()[service]
        image = self.engine.image_of(compose_files.expand(file.image, self.values(command)))
        if image is None:
            return Result(1, err=f"No such image: {file.image}")
        missing = [name for name in file.secrets if not self.secret(name).is_file()]
        if missing:
            return Result(1, err=f"bind source path does not exist: {missing[0]}")
        if "--name" in options:
            self.engine.spend()
            name = options[options.index("--name") + 1]
            if "--detach" in options:
                self.engine.one_shots.add(name)
        return self._run_in(service, image, program)

    def _run_in(self, service: str, image: Image, program: list[str]) -> Result:
        if "api.check_config" in program:
            is_refused = image.trait == REFUSES
            finding = "critical LOG_LEVEL: is not a level; correct it\n"
            return Result(EX_CONFIG, finding) if is_refused else Result(0)
        if service == "migrate":
            known = migrations.parse_label(image.labels.get("slipway.migrations", ""))
            return self._migrate(known, is_pre_only="pre" in program)
        if service == "restore":
            return self.programs.restore(program)
        if service == "postgres":
            return self.programs.run_beside_postgres(image, program)
        if service == "backup":
            self.engine.spend()
            return Result(0, json.dumps({"result": {}}) + "\n")
        return self._make_first_user()

    def _database_fault(self) -> str:
        """Return the reason why a new container of a service cannot use the database."""
        if not self.engine.is_running(self.project, "postgres"):
            return "connection to server failed: Connection refused"
        database = self.engine.database(self.project)
        if database is None or database.password != self.read_secret("database_password"):
            return 'FATAL: password authentication failed for user "slipway"'
        return ""

    def _migrate(self, known: list[migrations.Revision], *, is_pre_only: bool) -> Result:
        fault, database = self._database_fault(), self.engine.database(self.project)
        if fault or database is None:
            return Result(1, err=fault)
        self.engine.clock.advance(MIGRATE_SECONDS)
        self.engine.spend()
        return Result(0, database.migrate(known, is_pre_only=is_pre_only) + "\n")

    def _make_first_user(self) -> Result:
        fault, database = self._database_fault(), self.engine.database(self.project)
        if fault or database is None:
            return Result(1, err=fault)
        self.engine.spend()
        database.has_first_user = True
        return Result(0)


@lru_cache(maxsize=256)
def _definitions(given: tuple[tuple[str, str], ...], root: Path) -> str:
    """Return the definition of each service as JSON; it depends on nothing but the values."""
    values = dict(given)
    services = {
        name: {
            "image": compose_files.expand(file.image, values),
            "values": compose_files.configuration(name, values, root),
        }
        for name, file in compose_files.services().items()
    }
    return json.dumps({"services": services})


def describe(container: Container) -> str:
    """Return the line of `docker compose ps` for a container."""
    ports = tuple(ports_of(container) if container.state == "running" else ())
    return _line(container.service, container.state, container.health, ports)


@lru_cache(maxsize=256)
def _line(service: str, state: str, health: str, published: tuple[str, ...]) -> str:
    ports = [{"URL": "127.0.0.1", "PublishedPort": int(port)} for port in published]
    facts = {"Service": service, "State": state, "Health": health}
    return json.dumps({**facts, "Status": f"{state} {health}".strip(), "Publishers": ports})


def ports_of(container: Container) -> list[str]:
    """Return the ports that a container publishes on the host."""
    if container.service != "nginx":
        return []
    given = container.configuration
    return [given.get("HTTP_PORT") or "8080", given.get("HTTPS_PORT") or "8443"]


def words(argv: list[str]) -> list[str]:
    """Return the names among the arguments of a command."""
    names, is_value = [], False
    for word in argv:
        if is_value:
            is_value = False
        elif word in OPTIONS_WITH_VALUE:
            is_value = True
        elif word not in OPTIONS:
            names.append(word)
    return names
