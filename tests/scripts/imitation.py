"""Imitates a host in memory: commands change its slots, images and live link."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stack.commands.command import Command
from stack.config import environment, service
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project, load
from stack.failure import Failure
from stack.https import Answer, Question
from stack.parts import deployments, edge, edge_settings, ledger, slot_files
from stack.parts.ledger import Deployment
from stack.runner import Result, accepted
from stack.stories import deploy
from stack.stories.deploy import Options

from tests.scripts.counting import MARK, SOCKET, Counting
from tests.scripts.recording import RecordingRunner

ROOT = Path(__file__).resolve().parents[2]
HEAD = "2026_01_01_0000"
EXPIRES = "Jan  1 00:00:00 2090 GMT"
Injection = Callable[["Host", Project], None]
SWITCH = "docker compose exec --no-TTY nginx sh -ec"
RENAME = "ln -sfn {0}.sock"
UP = "docker compose up --detach --no-deps --wait --wait-timeout 60"
WAIT = f"{UP} {{0}}"
ANEW = UP.replace("--no-deps", "--no-deps --force-recreate")
START = f"{ANEW} {{0}}"  # starts the API in a deploy
MIGRATE = "run --rm --no-deps --no-TTY migrate"


@dataclass
class Host(RecordingRunner):
    """A host where blue is live with release `old`, and green is stopped with release `older`.

    A command whose reply has an exit code other than 0 changes nothing.
    """

    live: str = "blue"
    tags: dict[str, str] = field(
        default_factory=lambda: {"blue": "old", "green": "older", "old": "old", "older": "older"}
    )
    running: set[str] = field(
        default_factory=lambda: {"nginx", "postgres", "redis", "api-blue", "worker-blue"}
    )
    labels: dict[str, str] = field(default_factory=dict)
    built_from: dict[str, str] = field(default_factory=dict)
    head: str = HEAD
    failing: str = ""  # the slot that answers clients with errors
    counting: Counting = field(init=False)
    service: str = field(default_factory=lambda: (ROOT / "service.toml").read_text("utf-8"))
    ill: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.door = self.answer
        self.counting = Counting(self.clock)

    def answer(self, question: Question) -> Answer:
        """Answer at the front door as the live slot does; some clients send requests as well."""
        answer = self._from_slot(self.live)
        mark = question.headers.get(MARK, "")
        self.counting.add(self.live, answer.status, watch=mark)
        if mark and self.live == self.failing:
            self.counting.add(self.live, 500, 30)
        return answer

    def _from_slot(self, slot: str, status: int = 200) -> Answer:
        release = self.tags.get(slot, "")
        if f"api-{slot}" not in self.running or release in self.ill:
            return Answer(503, "{}", {}, EXPIRES)
        headers = {"X-Slipway-Release": release, "X-Slipway-Slot": slot}
        return Answer(status, '{"access_token": "token"}', headers, EXPIRES)

    def _reply_to(self, command: Command) -> Result:
        argv, text = list(command.argv), shlex.join(command.argv)
        found = self._find(text)
        if found is not None:
            return accepted(command, found)
        if SOCKET in text:
            return accepted(command, self.counting.answer(command))
        if argv[:2] == ["docker", "image"]:
            return self._inspect(argv[-1].rpartition(":")[2], argv[-2])
        if "curl" in argv:
            return self._probe(argv[-1])
        for part, out in self._facts():
            if part in text:
                return Result(0, out)
        return super()._reply_to(command)

    def _facts(self) -> list[tuple[str, str]]:
        lines = [
            json.dumps({"Service": n, "State": "running", "Health": "healthy"})
            for n in sorted(self.running)
        ]
        return [
            ("readlink", f"{self.live or 'none'}.sock\n"),
            ("ps --all --format json", "\n".join(lines)),
            ("ps --all --quiet", ""),
            ("docker compose logs", "the reason\n"),
            ("docker compose config", ""),
            ("docker info", "/\n"),
            ("x509 -noout", "Hostname x does match certificate\n"),
            ("max_connections", "60|3\n"),
            ("api.check_config", ""),
            ("version_num", f"{self.head}\n"),
            ("entrypoint.sh", ""),
            ("cat service.toml", self.service),
            ("docker images", "\n".join(reversed(self.tags)) + "\n"),
        ]

    def _inspect(self, tag: str, form: str) -> Result:
        if tag not in self.tags:
            return Result(1, err="no such image")
        release = self.tags[tag]
        migrations = self.labels.get(release, f"{HEAD}:pre")
        head = migrations.rpartition(",")[2].partition(":")[0]
        if "image.version" in form:
            return Result(0, release + "\n")
        if "slipway.inputs" in form:
            return Result(0, self.built_from.get(release, "").partition("=")[2] + "\n")
        if "migration_head" in form:
            return Result(0, f"{head}\n")
        return Result(0, f"{migrations if 'slipway.migrations' in form else f'sha256:{release}'}\n")

    def _probe(self, url: str) -> Result:
        port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        answer = self._from_slot(
            {"8083": "blue", "8084": "green"}[port], 401 if path == "v1/items" else 200
        )
        head = "\r\n".join(f"{key}: {value}" for key, value in answer.headers.items())
        return Result(0, f"HTTP/1.1 {answer.status} .\r\n{head}\r\n\r\n{answer.body}")

    def run(self, command: Command) -> Result:
        result = super().run(command)
        if result.code == 0 and not self.is_dry:
            self._change(list(command.argv))
        return result

    def _change(self, argv: list[str]) -> None:
        if argv[:2] == ["docker", "build"]:
            tag = argv[argv.index("--tag") + 1].rpartition(":")[2]
            self.tags[tag] = tag
            self.labels[tag] = next(
                word for word in argv if word.startswith("MIGRATIONS=")
            ).partition("=")[2]
            self.built_from[tag] = next(word for word in argv if word.startswith("slipway.inputs="))
        elif argv[:2] == ["docker", "tag"]:
            source, target = (name.rpartition(":")[2] for name in argv[2:4])
            self.tags[target] = self.tags.get(source, source)  # an id names the image of a release
        elif argv[:2] == ["docker", "rmi"]:
            del self.tags[argv[2].rpartition(":")[2]]
        elif switched := re.search(r"ln -sfn (\w+)\.sock", argv[-1]):
            self.live = switched[1]
        elif argv[2:3] == ["up"]:
            self.running.add(argv[-1])
        elif argv[2:3] == ["stop"] or argv[2:3] == ["rm"] or argv[2:3] == ["kill"]:
            self.running -= set(argv)

    def changes(self) -> list[str]:
        """Return the changes of slots and live link, such as `up api-green` or `switch green`."""
        found = []
        for command in self.ran:
            words = shlex.split(command)
            if switched := re.search(r"ln -sfn (\w+)\.sock", command):
                found.append(f"switch {switched[1]}")
            elif words[:2] == ["docker", "tag"]:
                found.append(
                    f"place {words[2].rpartition(':')[2]} in {words[3].rpartition(':')[2]}"
                )
            elif words[:2] == ["docker", "compose"] and words[2] != "exec":
                services = [word for word in words if word.startswith(("api-", "worker-"))]
                found.append(" ".join([words[2], *services]))
        return found

    def steps(self) -> list[str]:
        """Return the names of the announced steps."""
        return [
            line.split(" [")[0].removeprefix("==> ")
            for line in self.said
            if line.startswith("==> ")
        ]


def write_secrets(project: Project) -> None:
    """Give a checkout every secret file."""
    project.secrets.mkdir(exist_ok=True)
    for name in SECRETS:
        (project.secrets / name).write_text("0123456789abcdef\n", encoding="utf-8")
    for name in OPTIONAL_SECRETS:
        (project.secrets / name).write_text("", encoding="utf-8")


def furnish(root: Path) -> Project:
    """Give a checkout the secrets, the nginx configuration and two good releases."""
    project = load(root)
    write_secrets(project)
    project.nginx_folder.mkdir(parents=True)
    (project.nginx_folder / "current").symlink_to(f"releases/{edge.fingerprint(root / 'nginx')}")
    locations = edge_settings.locations_of(service.load(root))
    edge_settings.write(RecordingRunner(), project, edge_settings.wanted(project, locations))
    for number, (release, slot) in enumerate((("older", "green"), ("old", "blue")), 1):
        deployment = Deployment(number, release, deployments.fingerprint(project.service_settings))
        facts = {"to": release, "result": "done", **deployment.facts}
        ledger.record(RecordingRunner(), project, "deploy", **facts)
        place(project, deployment, slot)
    return project


def place(project: Project, deployment: Deployment, slot: str, **settings: str) -> None:
    """Write the file of a slot and the snapshot of its deployment, as a deploy did."""
    given = {**project.service_settings, **settings}
    deployments.place(Host(), project, deployment, slot, given)
    file = deployments.snapshot_of(project, deployment.number)
    file.parent.mkdir(exist_ok=True)
    file.write_text(slot_files.content(given), encoding="utf-8")


def set_values(root: Path, **values: str) -> None:
    """Set keys of the checkout's `.env`, as an operator edits it."""
    file = root / ".env"
    text = environment.with_values(file.read_text(encoding="utf-8"), values)
    file.write_text(text, encoding="utf-8")


def hook(root: Path, name: str) -> None:
    """Put an executable hook into the checkout; the recording runner does not run it."""
    file = root / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("#!/bin/sh\n", encoding="utf-8")
    file.chmod(0o755)


def fail(command: str) -> Injection:
    """Return an injection that makes a command fail."""
    return lambda host, _: host.reply(command, Result(1, err="the reason"))


def fail_hook(name: str) -> Injection:
    """Return an injection that adds a hook which fails."""

    def inject(host: Host, project: Project) -> None:
        hook(project.root, name)
        host.reply(f"hooks/{name}", Result(7, err="the reason"))

    return inject


def check_form(failed: Failure) -> None:
    """Check that a failure prints one error, hints and one runbook link, even if an undo failed."""
    lines = str(failed).splitlines()
    kinds = [line.partition(": ")[0] for line in lines]
    assert kinds[0] == "error"
    assert kinds.count("error") == 1, lines
    assert kinds.count("RUNBOOK") == 1, lines
    assert set(kinds[1:-1]) == {"HINT"}, lines


def failure_of(action: Callable[[], None]) -> Failure:
    """Return the failure that ends a story; catch Ctrl-C, which would end the test run."""
    try:
        action()
    except Failure as failed:
        check_form(failed)
        return failed
    except KeyboardInterrupt:
        raise AssertionError("the story did not turn the signal into a failure") from None
    raise AssertionError("the story did not fail")


def deploy_on(host: Host, project: Project, image: str = "") -> None:
    """Deploy the checkout, or an image."""
    deploy.run(host, project.root, Options(image=image))


def failed_deploy(host: Host, project: Project, image: str = "") -> Failure:
    """Return the failure that ends a deploy."""
    return failure_of(lambda: deploy_on(host, project, image))


def release_of(host: Host) -> str:
    """Return the release that the deploy built."""
    return next(tag for tag in host.tags if tag.startswith("src-"))
