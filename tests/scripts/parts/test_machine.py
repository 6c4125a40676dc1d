"""An existing engine is kept: missing programs are added, or the error names them."""

import os
import shlex
import shutil

import pytest
from stack.failure import Failure
from stack.parts import machine
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

UBUNTU_PLUGINS = ["docker-compose-v2", "docker-buildx"]
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


def packages(runner: RecordingRunner) -> list[str]:
    """Return the packages that the only installation names, and check that it removes none."""
    (install,) = [command for command in runner.ran if "apt-get install" in command]
    words = shlex.split(install)
    assert "--no-remove" in words
    return [word for word in words[words.index("install") + 1 :] if not word.startswith("--")]


def test_only_the_packages_whose_program_is_missing_are_installed(debian: RecordingRunner) -> None:
    assert machine.ensure_engine(debian) == "engine 28.0, compose 2.40.3"
    assert packages(debian) == ["docker-compose"]


@pytest.mark.parametrize(
    ("name", "added"),
    [("debian", ["docker-compose", "docker-buildx"]), ("ubuntu", UBUNTU_PLUGINS)],
)
def test_an_engine_that_is_there_is_not_installed_again(
    debian: RecordingRunner, monkeypatch: pytest.MonkeyPatch, name: str, added: list[str]
) -> None:
    fields = {"ID": name, "VERSION_ID": "13"}
    monkeypatch.setattr(machine, "read_os_release", lambda _: fields)
    debian.reply("docker buildx version", Result(125))
    machine.ensure_engine(debian)
    assert packages(debian) == added


def test_a_host_without_any_program_gets_them_all(
    debian: RecordingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", {"curl": "/usr/bin/curl"}.get)
    for part in ("docker version", "docker buildx version"):
        debian.reply(
            part, lambda: Result(0, "28.0\n") if debian.has_run("apt-get install") else Result(125)
        )
    machine.ensure_engine(debian)
    assert packages(debian) == [
        *("docker.io", "iptables", "ca-certificates", "docker-cli"),
        *("docker-compose", "docker-buildx"),
    ]


def test_an_engine_that_is_too_old_is_named_before_apt_gets_another_source(
    debian: RecordingRunner,
) -> None:
    debian.reply("docker version", Result(0, "20.10.24\n"))
    debian.reply("dockerd --version", Result(0, "Docker version 20.10.24, build 1\n"))
    with pytest.raises(Failure, match=r"20\.10\.24 runs, which is older than 25\.0"):
        machine.ensure_engine(debian)
    assert (debian.ran, debian.written) == ([], [])


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
    debian.reply("docker version", Result(125))
    debian.reply("apt-get install", Result(100, err="E: Unable to locate package\n"))
    with pytest.raises(Failure, match=r"apt-get install .* exited with 100"):
        machine.ensure_engine(debian)
