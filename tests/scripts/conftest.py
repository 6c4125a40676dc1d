"""Gives each test of the scripts its own checkout and a clean environment."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stack import __main__
from stack.config import environment, project

from tests.scripts.machine import Machine
from tests.scripts.recording import RecordingRunner

ROOT = Path(__file__).resolve().parents[2]
BASES = {"PYTHON_IMAGE": "p:1", "NGINX_IMAGE": "n:1", "POSTGRES_IMAGE": "g:1", "REDIS_IMAGE": "r:1"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = environment.known_keys(ROOT / ".env.example")
    for key in [
        key
        for key in os.environ
        if key in known or key.startswith(("DEBIAN_", "PIP_", "GIT_", "DOCKER_"))
    ]:
        monkeypatch.delenv(key)
    # A context that the machine's user chose must not affect a test.
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The sources of a release, without `.env` and without git."""
    root = tmp_path / "checkout"
    (root / "api/migrations/versions").mkdir(parents=True)
    shutil.copy(ROOT / ".env.example", root)
    shutil.copy(ROOT / "service.toml", root)
    (root / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    (root / "api/main.py").write_text("app = 1\n", encoding="utf-8")
    for name in ("nginx/conf.d/a.conf", "postgres/entrypoint.sh", "redis/redis.conf"):
        file = root / name
        file.parent.mkdir(parents=True)
        file.touch()
        for path, mode in ((file.parent.parent, 0o755), (file.parent, 0o755), (file, 0o755)):
            path.chmod(mode)  # independent of the user's umask
    (root / "nginx/entrypoint.sh").write_text("# reads settings.env\n", encoding="utf-8")
    (root / "nginx/entrypoint.sh").chmod(0o755)
    revision = 'revision = "2026_01_01_0000"\ndown_revision = None\n'
    (root / "api/migrations/versions/2026_01_01_0000_pre_first.py").write_text(
        revision, encoding="utf-8"
    )
    for path in (root / "api", *(root / "api").rglob("*")):
        path.chmod(0o755)
    return root


@pytest.fixture
def checkout(bare: Path, tmp_path: Path) -> Path:
    """A checkout with a complete `.env`."""
    values = {**BASES, "STATE_DIR": str(tmp_path / "state")}
    text = environment.with_values((bare / ".env.example").read_text(encoding="utf-8"), values)
    (bare / ".env").write_text(text, encoding="utf-8")
    return bare


@pytest.fixture
def loaded(checkout: Path) -> project.Project:
    return project.load(checkout)


@pytest.fixture
def runner() -> RecordingRunner:
    return RecordingRunner()


@pytest.fixture
def ports(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Ports on which nothing listens, because up.sh checks the real ports of the machine."""
    with ExitStack() as stack:
        listeners = {
            key: stack.enter_context(socket.socket()) for key in ("HTTP_PORT", "HTTPS_PORT")
        }
        for listener in listeners.values():
            listener.bind(("127.0.0.1", 0))
        found = {key: int(listener.getsockname()[1]) for key, listener in listeners.items()}
    for key, port in found.items():
        monkeypatch.setenv(key, str(port))
    return found


@pytest.fixture
def machine(runner: RecordingRunner, ports: dict[str, int]) -> Machine:
    return Machine(runner)


Typed = Callable[..., int]


@pytest.fixture
def typed(
    runner: RecordingRunner, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Typed]:
    """Return a function that runs a script on the recording runner, and returns the exit code."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(__main__, "RealRunner", lambda *_: runner)
    monkeypatch.setattr(__main__, "ROOT", checkout)
    monkeypatch.chdir(checkout)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["stack", *arguments])
        return __main__.main()

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
