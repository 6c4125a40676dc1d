"""An existing engine is kept: missing programs are added, or the error names them."""

import os
import shutil

import pytest
from stack.failure import Failure
from stack.parts import machine
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

CONFLICT = "E: Packages need to be removed but remove is disabled.\n"


@pytest.fixture
def debian(runner: RecordingRunner, monkeypatch: pytest.MonkeyPatch) -> RecordingRunner:
    """A Debian 13 whose user is root; its engine lacks Compose."""
    fields = {"ID": "debian", "VERSION_ID": "13"}
    monkeypatch.setattr(machine, "read_os_release", lambda _: fields)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    runner.reply("docker version", Result(0, "28.0\n"))
    runner.reply("docker buildx version", Result(0, "0.20\n"))
    runner.reply(
        "docker compose version",
        lambda: Result(0, "2.40.3\n") if runner.has_run("apt-get install") else Result(125),
    )
    return runner


def test_the_packages_that_are_missing_are_installed_and_none_is_removed(
    debian: RecordingRunner,
) -> None:
    assert machine.ensure_engine(debian) == "engine 28.0, compose 2.40.3"
    (install,) = [command for command in debian.ran if "apt-get install" in command]
    assert "--no-remove" in install
    assert "docker-compose" in install


def test_where_apt_would_remove_the_engine_the_owner_learns_what_to_install(
    debian: RecordingRunner,
) -> None:
    debian.reply("apt-get install", Result(100, err=CONFLICT))
    with pytest.raises(Failure, match="an engine without Compose v2") as raised:
        machine.ensure_engine(debian)
    assert "docker-compose-plugin docker-buildx-plugin" in raised.value.hints[0]
    assert raised.value.evidence == CONFLICT


def test_a_host_without_an_engine_shows_the_command_that_failed(
    debian: RecordingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    debian.reply("apt-get install", Result(100, err="E: Unable to locate package\n"))
    with pytest.raises(Failure, match=r"apt-get install .* exited with 100"):
        machine.ensure_engine(debian)
