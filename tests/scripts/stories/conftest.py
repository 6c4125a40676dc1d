"""Fixtures of stories: a host in memory, a checkout with a migration to apply, a healthy stack."""

from pathlib import Path

import pytest
from stack.config.project import Project
from stack.runner import Result

from tests.scripts.counting import SOCKET, Counting
from tests.scripts.imitation import HEAD, Host, furnish
from tests.scripts.parts.test_redis import info
from tests.scripts.recording import RecordingRunner
from tests.scripts.status_rows import LABEL, VOLUME, Door, backup_rows, containers

ADD = f'revision = "2026_02_01_0000"\ndown_revision = "{HEAD}"\n'


@pytest.fixture
def no_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Require no free disk or memory, because the test machine may have little of both."""
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    monkeypatch.setenv("NOTIFY_COMMAND", "notify me")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(no_floors: None, checkout: Path) -> Project:
    (checkout / "api/migrations/versions/2026_02_01_0000_pre_add.py").write_text(
        ADD, encoding="utf-8"
    )
    return furnish(checkout)


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def well(runner: RecordingRunner, door: Door) -> RecordingRunner:
    """A stack without a fault."""
    runner.reply("readlink", Result(0, "blue.sock\n"))
    runner.reply("image.version", Result(0, "r-1\n"))
    runner.reply("slipway.migrations", Result(0, LABEL + "\n"))
    runner.reply("docker compose ps", containers())
    runner.reply("psql", Result(0, "2026_11_20_0903|0|1|0|0\n"))
    runner.reply("python3 -m backup status", backup_rows(archive=True))
    counting = Counting(runner.clock)
    runner.reply(SOCKET, lambda: Result(0, counting.ask("/counts")[1]))
    runner.reply("cli.sh info", info())
    runner.reply("docker info", Result(0, "/\n"))
    runner.reply(VOLUME, Result(0, "40000000000 100000000000\n268435456\n"))
    runner.door = door
    return runner
