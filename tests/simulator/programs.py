"""The programs inside the containers: answers of nginx, the API, Postgres, Redis and backups."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

from stack.https import Answer
from stack.runner import Result

from tests.simulator.containers import (
    BREAKS,
    FAILS_IN_TRAFFIC,
    Container,
    Engine,
    Image,
)
from tests.simulator.counters import NO_COUNTER, SOCKET

ROOT = Path(__file__).resolve().parents[2]
EXPIRES = "Jan  1 00:00:00 2090 GMT"
PROBE_PORTS = {"8083": "blue", "8084": "green"}
SWITCH = re.compile(r"ln -sfn (\w+)\.sock")
HOST = re.compile(r"^Host: (.*)$")
REDIS = {
    "used_memory": "1000000",
    "maxmemory": "16777216",
    "evicted_keys": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
}
DISK = "40000000000 100000000000\n268435456\t/var/lib/postgresql/data/ballast\n"
UNDEFINED = 'ERROR:  relation "alembic_version" does not exist'
BYTES = 1_000_000  # the size of every simulated database


class Compose(Protocol):
    """The queries of the programs to Compose."""

    @property
    def project(self) -> str:
        """The project of `.env`."""

    def read_secret(self, name: str) -> str:
        """Return the secret that a new process would read."""


@cache
def service_file() -> str:
    """Return the real service.toml, which every simulated release carries."""
    return (ROOT / "service.toml").read_text(encoding="utf-8")


class Programs:
    """Runs a program in a container."""

    def __init__(self, engine: Engine, compose: Compose) -> None:
        self.engine = engine
        self.compose = compose

    def run(self, container: Container, program: list[str], stdin: str = "") -> Result:
        """Run a program in a running container."""
        if program[:2] == ["sh", "-c"] and "read -r " in program[2]:
            return self._log_in(container, program[2], stdin.removesuffix("\n"))
        kind = container.service.partition("-")[0]
        result: Result = getattr(self, f"_in_{kind}")(container, program)
        return result

    def _log_in(self, container: Container, script: str, secret: str) -> Result:
        """Log in with a secret, which the server compares with its own."""
        if "repo-get" in script:
            key = self.engine.volume(container.project, "backups").backups.key
            if not key:
                return Result(1, err="ERROR: [055]: unable to open missing file")
            return Result(0) if secret == key else Result(1, err="ERROR: [095]: CryptoError")
        if container.service == "postgres":
            database = self.engine.database(container.project)
            is_right = database is not None and database.password == secret
            refusal = 'FATAL:  password authentication failed for user "slipway"'
            return Result(0, "1\n") if is_right else Result(2, err=refusal)
        name = "redis_admin_password" if "--user operator" in script else "redis_password"
        is_right = container.secrets[name] == secret
        return Result(0, "PONG\n") if is_right else Result(1, "AUTH failed: WRONGPASS\n")

    def _in_nginx(self, container: Container, program: list[str]) -> Result:
        text = " ".join(program)
        volume = self.engine.volume(container.project, "slots")
        if "readlink" in text:
            return Result(0, f"{volume.link or 'none'}.sock\n")
        if switch := SWITCH.search(text):
            self.engine.spend()
            volume.link = switch[1]
            return Result(0)
        if SOCKET in text:
            return self._count(container.project, text)
        if "curl" in program:
            return self._probe(container.project, program)
        if program[-1] == "reload":
            self.engine.spend()
            is_read = self.engine.read_settings(container)
            return Result(0) if is_read else Result(1, err="error: nginx cannot read settings.env")
        raise AssertionError(f"the simulated nginx does not know `{text}`")

    def _in_api(self, _: Container, program: list[str]) -> Result:
        assert "cat service.toml" in program[-1]
        return Result(0, service_file())

    def _in_postgres(self, container: Container, program: list[str]) -> Result:
        text = program[-1]
        version = self.engine.images[container.image].version
        if program[0] == "df" or "df --block-size" in text:
            return Result(0, DISK if program[0] == "sh" else "Avail\n40000000000\n")
        is_sized = "pg_database_size" in text
        answers = {
            "ballast.sh": "",
            "create extension": "",
            "max_connections": "60|3\n",
            "server_version_num": f"{version}|{BYTES}\n" if is_sized else f"{version}\n",
            "archived_count": "t\n",
        }
        for part, answer in answers.items():
            if part in text:
                return Result(0, answer)
        assert "version_num" in text, text
        database = self.engine.database(container.project)
        if database is None or not database.head:
            return Result(1, err=UNDEFINED)
        return Result(0, database.head + ("|0|0|0|0\n" if "procrastinate" in text else "\n"))

    def _in_redis(self, _: Container, __: list[str]) -> Result:
        return Result(0, "".join(f"{name}:{value}\r\n" for name, value in REDIS.items()))

    def _in_backup(self, container: Container, program: list[str]) -> Result:
        backups = self.engine.volume(container.project, "backups").backups
        is_readable = backups.key == container.secrets["backup_key"]
        if program[-1] == "status":
            rows = [{"name": "backup", "is_well": is_readable, "text": f"{len(backups.kept)} kept"}]
            return Result(0, json.dumps({"rows": rows}))
        if not is_readable:
            return refuse("the backups are of another key")
        database = self.engine.database(container.project)
        if database is None or not self.engine.is_running(container.project, "postgres"):
            return refuse("Postgres does not answer")
        self.engine.clock.advance(10)
        self.engine.spend()
        backups.kept.append(database.copy())
        return Result(0, json.dumps({"result": {"label": str(len(backups.kept))}}))

    def _probe(self, project: str, program: list[str]) -> Result:
        port, _, path = program[-1].removeprefix("http://127.0.0.1:").partition("/")
        host = next(match[1] for word in program if (match := HOST.match(word)))
        answer = self.slot_answer(project, PROBE_PORTS[port], f"/{path}", host)
        if answer.status == 200 and path == "v1/items" and "Authorization" not in str(program):
            answer = replace(answer, status=401)
        head = "".join(f"\r\n{key}: {value}" for key, value in answer.headers.items())
        return Result(0, f"HTTP/1.1 {answer.status} .{head}\r\n\r\n{answer.body}")

    def slot_answer(self, project: str, slot: str, path: str, host: str) -> Answer:
        """Answer as nginx does when it passes a request to a slot."""
        container = self.engine.container(project, f"api-{slot}")
        if container is None or not container.is_well:
            return Answer(503, "{}", {}, EXPIRES)
        image = self.engine.images[container.image]
        headers = {"X-Slipway-Release": image.release, "X-Slipway-Slot": slot}
        body, status = '{"access_token": "token"}', 200
        if not accepts(container, host):
            return Answer(400, "{}", headers, EXPIRES)
        if path not in {"/livez", "/version"} and not self.can_use_database(container):
            status = 503
        elif image.trait == BREAKS and path.startswith("/v1/"):
            status = 500
        if path == "/readyz":
            state = "ready" if self.can_use_redis(container) else "degraded"
            body = json.dumps({"status": state if status == 200 else "unavailable"})
        return Answer(status, body, headers, EXPIRES)

    def _count(self, project: str, text: str) -> Result:
        """Answer as the counter does: constant traffic to the live slot, and the scripts' own."""
        slot, traffic = self.engine.link(project), self.engine.traffic_of(project)
        container = self.engine.container(project, f"api-{slot}")
        is_counted = self.is_counted(project)
        if self.engine.has_traffic and container is not None and container.is_well:
            is_failing = self.engine.images[container.image].trait == FAILS_IN_TRAFFIC
            traffic.add_clients(slot, 500 if is_failing else 200, is_counted=is_counted)
        return traffic.answer(text) if is_counted else NO_COUNTER

    def is_counted(self, project: str) -> bool:
        """Whether nginx' datagrams reach a counter."""
        counter = self.engine.container(project, "counter")
        return counter is not None and counter.is_well

    def can_use_database(self, container: Container) -> bool:
        """Whether the password of a container's process opens the running database."""
        database = self.engine.database(container.project)
        is_running = self.engine.is_running(container.project, "postgres")
        password = container.secrets.get("database_password")
        return bool(is_running and database and database.password == password)

    def can_use_redis(self, container: Container) -> bool:
        """Whether the password of a container's process opens the running Redis."""
        redis = self.engine.container(container.project, "redis")
        name = "redis_password"
        return bool(redis and redis.is_well and redis.secrets[name] == container.secrets[name])

    def restore(self, program: list[str]) -> Result:
        """Answer as the restore container does."""
        project = self.compose.project
        volume = self.engine.volume(project, "postgres")
        backups = self.engine.volume(project, "backups").backups
        word = program[program.index("backup.restore") + 1]
        stamp = next((w.partition("=")[2] for w in program if w.startswith("--stamp=")), "")
        version = max((name for name in volume.directories if name.isdecimal()), default="17")
        old = f"{version}.before-{stamp}"
        facts: dict[str, object] = {}
        if word == "tidy":
            volume.prepared = None
            kept = [name for name in volume.directories if ".before-" in name]
            facts = {"tidied": [], "has_database": version in volume.directories}
            facts["old"] = dict.fromkeys(kept, BYTES)
        elif word == "make":
            if backups.key != self.compose.read_secret("backup_key") or not backups.kept:
                return refuse("there is no backup to begin with")
            # The archive has the same rows as the database; an earlier time is not simulated.
            current = volume.directories.get(version)
            volume.prepared = (current or backups.kept[-1]).copy()
            facts = {"text": "the end of the archive", "label": "full", "bytes": BYTES}
        elif word == "swap":
            self.engine.spend()
            if volume.prepared is None:
                return refuse("there is no restored database")
            if version in volume.directories:
                volume.directories[old] = volume.directories[version]
            volume.directories[version], volume.prepared = volume.prepared, None
        elif word == "swap-back":
            self.engine.spend()
            volume.directories[version] = volume.directories.pop(old)
        return Result(0, json.dumps({"result": facts}))

    def run_beside_postgres(self, image: Image, program: list[str]) -> Result:
        """Run a program in a throw-away container with Postgres' volume."""
        directories = self.engine.volume(self.compose.project, "postgres").directories
        names = [Path(word).name for word in program[1:] if not word.startswith("-")]
        if program[0] == "postgres":
            return Result(0)
        if program[0].endswith("upgrade.sh"):
            self.engine.clock.advance(60)
            former = directories[max(name for name in directories if name.isdecimal())]
            self.engine.spend()
            directories[f"{image.version}.new"] = former.copy()
        elif program[0] == "mv":
            self.engine.spend()
            directories[names[1]] = directories.pop(names[0])
        else:
            assert program[0] == "rm", program
            for name in names:
                directories.pop(name, None)
        return Result(0)


def refuse(observation: str) -> Result:
    """Return an answer of the backup service or the restore container with an error."""
    return Result(1, json.dumps({"error": {"observation": observation, "hints": []}}))


def accepts(container: Container, host: str) -> bool:
    """Whether the API of a container accepts a host's name."""
    return host in (container.environment.get("ALLOWED_HOSTS") or host).split(",")
