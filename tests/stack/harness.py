"""A stack for the tests: a copy of the checkout with its own project name, on free ports."""

import fcntl
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from stack.commands import engine

ROOT = Path(__file__).parents[2]
# Each worker process of pytest-xdist has a number, and a stack with its own project name.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
IS_KEPT = "SLIPWAY_TEST_KEEP_STACK" in os.environ
# SLIPWAY_TEST_PROJECT sets another name, for a second run at the same time.
PROJECT = os.environ.get("SLIPWAY_TEST_PROJECT", "slipway-test")
PROJECT += f"-{WORKER}" if WORKER else "-kept" if IS_KEPT else ""
IMAGE = f"{PROJECT}/app"
BUILDING = Path(tempfile.gettempdir()) / "slipway-test-building"
# Below the ports of outgoing connections: such a connection could take the port of a container that
# is being replaced.
FIRST_PORT, PORTS_OF_A_WORKER = 12_000, 1_500


def free_ports(count: int) -> list[int]:
    """Return different loopback ports on which nothing listens and which no other worker uses."""
    first = FIRST_PORT + PORTS_OF_A_WORKER * (1 + int(WORKER.removeprefix("gw") or -1))
    ports: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(range(first, first + PORTS_OF_A_WORKER), PORTS_OF_A_WORKER):
            if len(ports) == count:
                return ports
            listener = stack.enter_context(socket.socket())
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports.append(port)
    raise AssertionError(f"fewer than {count} ports are free")


@contextmanager
def reserved_project() -> Iterator[None]:
    """Reserve the project name for this run, because another run would remove its stacks."""
    with (Path(tempfile.gettempdir()) / f"{PROJECT}.lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"another run of the tests uses the project {PROJECT}; "
                "wait for it, or set SLIPWAY_TEST_PROJECT to another name"
            ) from None
        yield


def wait_until(
    condition: Callable[[], Any], seconds: float, what: str, every: float = 0.1
) -> float:
    """Wait until the condition is true; return the seconds that this took.

    Fail only after an attempt that started after the deadline: an attempt may take half a second.
    """
    started = attempted = time.monotonic()
    while not condition():
        assert attempted - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(every)
        attempted = time.monotonic()
    return time.monotonic() - started


class Stack:
    """The stack under test; every command runs in its own checkout."""

    def __init__(
        self,
        root: Path,
        project: str = PROJECT,
        host: str = "localhost",
        https_port: int = 0,
        ports: Sequence[int] = (),
    ) -> None:
        self.root = root
        self.project = project
        self.image = f"{project}/app"
        self.host = host
        free = ports or free_ports(3)
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": project,
            "SLIPWAY_IMAGE": self.image,
            "SLIPWAY_HOST": self.host,
            "HTTP_PORT": str(free[0]),
            "HTTPS_PORT": str(https_port or free[1]),
            "SINK_PORT": str(free[2]),
            "RATE_LIMIT_PER_SECOND": "2000",  # because all clients of the tests share one address
            # High enough for every test but those of the limits (test_limits.py), which start
            # their own API.
            "USER_LIMIT_PER_SECOND": "5000",
            "LOGIN_LIMIT_PER_MINUTE": "5000",
            "REGISTRATION_LIMIT_PER_HOUR": "50000",
            "EXPORT_LIMIT_PER_HOUR": "5000",
            "STATE_DIR": str(root / "state"),
            "WATCH_SECONDS": "1",
            "COMPOSE_ANSI": "never",
        }
        self.url = f"https://{self.host}:{self.environment['HTTPS_PORT']}"
        self.plain_url = f"http://{self.host}:{self.environment['HTTP_PORT']}"

    def prepare(self) -> None:
        """Install the engine and build all images; start no container.

        All stacks of a machine share the base images: two stacks must not build them at once.
        """
        with BUILDING.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.run("./scripts/up.sh", "--prepare", timeout=1500)

    def run(
        self, *argv: str, check: bool = True, timeout: float = 600, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout under test."""
        ended = subprocess.run(
            argv,
            cwd=self.root,
            env={**self.environment, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert ended.returncode == 0, (
                f"{argv} exited with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
            )
        return ended

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """Run Compose on the stack under test; `exec` goes to the engine, which is faster."""
        argv = ["docker", "compose", *arguments]
        project = self.environment.get("COMPOSE_PROJECT_NAME", "")  # none on a new host
        argv = engine.direct_exec(argv, project) or argv
        return self.run(*argv, check=check, timeout=timeout).stdout

    def sql(self, query: str) -> str:
        """Run a query as the superuser of Postgres and return its rows as text."""
        psql = ["psql", "-qtAX", "--username=postgres", "--dbname=slipway", "--host=/tmp"]
        return self.compose("exec", "--no-TTY", "postgres", *psql, "--command", query).strip()

    @contextmanager
    def holding(self, statement: str, name: str = "drill") -> Iterator[str]:
        """Hold the locks of a statement in an idle transaction; yield the session's process id."""
        psql = ["psql", "-qtAX", "--username=postgres", "--host=/tmp"]
        psql.append(f"--dbname=dbname=slipway application_name={name}")
        argv, pipe = ["docker", "compose", "exec", "--no-TTY", "postgres", *psql], subprocess.PIPE
        session = subprocess.Popen(
            argv, cwd=self.root, env=self.environment, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
        assert session.stdin
        assert session.stdout
        try:
            session.stdin.write(f"begin; select pg_backend_pid();\n{statement};\n\\echo held\n")
            pid = session.stdout.readline().strip()
            assert "held\n" in session.stdout, f"not held: {statement}"
            yield pid
        finally:
            session.stdin.close()  # ends psql and its transaction
            session.wait(30)

    def redis(self, *command: str) -> str:
        """Run a command in Redis as its operator and return the answer."""
        return self.compose("exec", "--no-TTY", "redis", "/etc/slipway/cli.sh", *command).strip()

    def metrics(self, port: int = 8083) -> dict[str, float]:
        """Return a slot's metrics through nginx, as `name{label="value"}` mapped to the value."""
        ask = ["exec", "--no-TTY", "nginx", "curl", "-sf", f"http://127.0.0.1:{port}/metrics"]
        lines = self.compose(*ask).splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")
        }

    def metrics_of(self, service: str, port: int) -> dict[str, float]:
        """Return the metrics of a container of the stack, by name and labels."""
        url = f"http://127.0.0.1:{port}/metrics"
        ask = (
            f"import urllib.request; print(urllib.request.urlopen('{url}', "
            "timeout=5).read().decode())"
        )
        text = self.compose("exec", "--no-TTY", service, "python3", "-c", ask)
        pairs = re.findall(r"^([^#\s][^}\n]*(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in pairs}

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.compose("--profile", "*", "ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's description of a service's container."""
        containers = json.loads(self.run("docker", "inspect", self.container(service)).stdout)
        return dict(containers[0])

    def host_pid(self, service: str) -> int:
        """Return the host's process id of a container's first process; 0 while it does not run."""
        return int(self.inspect(service)["State"]["Pid"])

    @property
    def tls(self) -> ssl.SSLContext:
        """A TLS context that trusts only the stack's certificate."""
        context = ssl.create_default_context(cafile=str(self.root / "secrets/tls/fullchain.pem"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    @contextmanager
    def client(self, **options: Any) -> Iterator[httpx2.Client]:
        """Yield a client of the front door that waits for 30 s unless a test sets a limit."""
        options.setdefault("timeout", 30)
        with httpx2.Client(
            base_url=self.url, verify=self.tls, trust_env=False, **options
        ) as client:
            yield client

    def token(self) -> str:
        """Return an access token of the first user, whom up.sh registered."""
        user = json.loads((self.root / "secrets/first_user.json").read_text(encoding="utf-8"))
        with self.client() as client:
            answer = client.post("/v1/users/login", json=user)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["access_token"])

    def new_token(self) -> str:
        """Return an access token of a new user."""
        user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
        with self.client(timeout=30) as client:
            assert client.post("/v1/users", json=user).status_code == 201
            return str(client.post("/v1/users/login", json=user).json()["access_token"])

    def is_serving(self) -> bool:
        """Whether the front door reports everything as ready, Redis included."""
        try:
            with self.client(timeout=2) as client:
                answer = client.get("/readyz")
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["status"] == "ready"

    def switch(self, slot: str) -> None:
        """Make a slot live: nginx's user renames the link in the volume."""
        move = (
            f"ln -sfn {slot}.sock /run/slots/next.sock && mv -T /run/slots/next.sock "
            "/run/slots/live.sock"
        )
        self.compose("exec", "--no-TTY", "nginx", "sh", "-ec", move)

    def deploy(
        self, *options: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh with a watch time of one second."""
        return self.run("./scripts/deploy.sh", *options, check=check, timeout=600, **env)

    def vary(self) -> None:
        """Change the sources, so that the next deploy makes a new release."""
        (self.root / "api/variant.py").write_text(
            f'"""Variant {time.time_ns()}."""\n', encoding="utf-8"
        )

    @contextmanager
    def edited(self, path: str, old: str, new: str) -> Iterator[None]:
        """Replace a part of a file while the block runs."""
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(text, encoding="utf-8")

    def back_to_blue(self) -> None:
        """Undo a test's changes to the checkout and make blue live, as other tests expect."""
        self.run("git", "checkout", "--quiet", "--", ".")
        (self.root / "api/variant.py").unlink(missing_ok=True)
        if self.live()[1] != "blue":
            self.switch("blue")
            self._start_blue()
        self.compose("rm", "--stop", "--force", "api-green", "worker-green")
        # The slot of an open rollback window is gone: end the window, and the process that waits.
        now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        entry = {"at": now, "action": "retire", "slot": "green", "result": "done"}
        with (self.root / "state/ledger.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(entry) + "\n")

    def _start_blue(self) -> None:
        # The worker anew: one that drains is healthy until it ends.
        for words in (["api-blue"], ["--force-recreate", "worker-blue"]):
            self.compose("up", "--detach", "--no-deps", "--wait", *words)

    def forget_revisions(self, undo: str, image: str) -> None:
        """Undo the migrations that a test added, and start an image without them in blue."""
        for file in (self.root / "api/migrations/versions").glob("2099_*.py"):
            file.unlink()
        self.sql(undo)
        self.run("docker", "tag", image, f"{self.image}:blue")
        self._start_blue()
        self.switch("blue")
        # The ledger's good releases contain the migrations that were undone.
        (self.root / "state/ledger.jsonl").write_text("", encoding="utf-8")
        # A test counts the ledger entries of its commands. The first command that finds no
        # deployment adds an extra entry: run such a command here.
        self.run("./scripts/up.sh")

    def live(self) -> tuple[str, str]:
        """Return the live release and slot; wait until the slot that the link names answers.

        For about a second after a switch nginx may still use a connection to the other slot.
        """
        link = self.compose("exec", "--no-TTY", "nginx", "readlink", "/run/slots/live.sock")
        slot = link.strip().removesuffix(".sock")
        headers: dict[str, str] = {}

        def is_answering() -> bool:
            with self.client() as client:
                answer = client.get("/version")
            headers.update(answer.headers)
            return answer.headers.get("x-slipway-slot") == slot

        wait_until(is_answering, 30, f"slot {slot} answers")
        return headers["x-slipway-release"], slot

    def ledger(self) -> list[dict[str, Any]]:
        """Return the complete entries of the ledger."""
        lines = (self.root / "state/ledger.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def remove(self) -> None:
        """Remove the containers, volumes, networks and images of this project, by its name."""
        label = f"label=com.docker.compose.project={self.project}"
        for kind, listing, removal in (
            ("container", ["ps", "--all"], ["rm", "--force", "--volumes"]),
            ("volume", ["volume", "ls"], ["volume", "rm", "--force"]),
            ("network", ["network", "ls"], ["network", "rm"]),
        ):
            names = self.run("docker", *listing, "--quiet", "--filter", label).stdout.split()
            if names:
                self.run("docker", *removal, *names, timeout=120)
            left = self.run("docker", *listing, "--quiet", "--filter", label).stdout.split()
            assert not left, f"a {kind} of {self.project} is left: {left}"
        for kind in ("", "-nginx", "-counter", "-postgres"):
            listing = ["images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.image}{kind}"]
            tags = self.run("docker", *listing).stdout.split()
            if tags:
                self.run("docker", "rmi", "--force", *tags)


def listed_files() -> list[str]:
    """Return the tracked and the new files of the checkout, without the ignored ones."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = listing.stdout.decode().split("\0")
    return sorted(name for name in set(names) if name and (ROOT / name).is_file())


def copy_checkout(target: Path) -> None:
    """Make a clone of the checkout in its current state."""
    for name in listed_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "as copied"],
    ):
        subprocess.run([*git, *arguments], cwd=target, check=True)


def write_revision(folder: Path, revision: str, parent: str, phase: str, body: str) -> None:
    """Write a migration with this body of `upgrade` into a folder."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    text = (
        "import sqlalchemy as sa\nfrom alembic import op\n\nrevision = "
        f'"{revision}"\ndown_revision = "{parent}"\n'
    )
    file = folder / f"{revision}_{phase}_drill.py"
    file.write_text(f"{text}\n\ndef upgrade() -> None:\n{lines}", encoding="utf-8")
