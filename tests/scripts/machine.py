"""Imitates a machine in memory for `up.sh`: commands place a release and start nginx."""

import json
import re
from pathlib import Path

from stack.config.project import load
from stack.https import Answer, Question
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

ROOT = Path(__file__).resolve().parents[2]
PLACE = "docker tag"
WAIT = "docker compose up --detach --no-deps --wait"


def container(
    service: str, state: str = "running", health: str = "healthy", ports: tuple[int, ...] = ()
) -> str:
    facts = {"Service": service, "State": state, "Health": health, "Status": state}
    published = [{"URL": "127.0.0.1", "PublishedPort": port} for port in ports]
    return json.dumps({**facts, "Publishers": published}) + "\n"


class Machine:
    """An engine with base images, and a front door that answers once nginx has started."""

    def __init__(self, runner: RecordingRunner, placed: str = "") -> None:
        self.runner, self.placed, self.users = runner, placed, list[dict[str, str]]()
        self.service = (ROOT / "service.toml").read_text(encoding="utf-8")
        self.containers = ""
        self.build_is_answered = ""
        self.registration = Result(0)
        for part in ("docker version", "docker compose version", "docker buildx version"):
            runner.reply(part, Result(0, "2.40.3\n"))
        runner.reply("docker version", Result(0, "26.1.5\n"))
        runner.reply("docker image inspect", Result(0, "sha256:1\n"))
        runner.reply("docker image inspect --format '{{.Id}}' slipway/app:src-", Result(1))
        runner.reply(
            "image.version", lambda: Result(0, self.release + "\n") if self.release else Result(1)
        )
        runner.reply("apt-config", Result(0))
        runner.reply("x509 -noout", Result(0, "Hostname x does match certificate\n"))
        runner.reply("entrypoint.sh", Result(0))
        runner.reply("cat service.toml", lambda: Result(0, self.service))
        runner.reply("api.users.first_user", self.register)
        runner.reply("readlink", Result(0, "blue.sock\n"))
        runner.reply("docker compose config", Result(0))
        runner.reply(
            "api.check_config",
            lambda: Result(0) if self.release else Result(1, err="No such image"),
        )
        runner.reply("docker compose ps", lambda: Result(0, self.containers))
        runner.reply("server_version_num", Result(1, err="service postgres is not running\n"))
        runner.reply(
            "from alembic_version",
            Result(1, err='ERROR:  relation "alembic_version" does not exist\n'),
        )
        runner.reply("ps --all --quiet api-", Result(0))
        runner.reply("docker compose logs", Result(0, "worker-blue-1  | the reason\n"))
        runner.reply(
            "run --rm --no-deps --no-TTY migrate", Result(0, "migrated: empty -> 2026_01_01_0000\n")
        )
        runner.door = self.answer

    @property
    def release(self) -> str:
        tags = [
            command.split()[2]
            for command in self.runner.ran
            if re.fullmatch(rf"{PLACE} \S+ slipway/app:\w+", command) and not self.runner.is_dry
        ]
        return tags[-1].partition(":")[2] if tags else self.placed

    @property
    def has_nginx(self) -> bool:
        """Whether nginx runs, or has been started beside blue."""
        if '"nginx", "State": "running"' in self.containers:
            return True
        starts = [each for each in self.runner.ran if each.startswith(WAIT)]
        return any(" nginx" in each and "green" not in each for each in starts)

    def answer(self, question: Question) -> Answer:
        if self.runner.is_dry or not self.has_nginx:
            return Answer(0, error="connection refused")
        headers = {
            "X-Slipway-Release": self.build_is_answered or self.release,
            "X-Slipway-Slot": "blue",
        }
        return Answer(200, "{}", headers)

    def register(self) -> Result:
        """Read the credentials as the service's command for the first user does."""
        assert self.has_nginx
        self.users.append(json.loads(self.runner.inputs[-1]))
        return self.registration


def ledger(root: Path) -> list[dict[str, object]]:
    file = load(root).ledger
    return (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if file.exists()
        else []
    )
