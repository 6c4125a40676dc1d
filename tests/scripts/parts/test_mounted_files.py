"""The error names a file that a container could not read, or would read differently."""

import os
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.parts import edge, mounted_files
from stack.runner import Result

from tests.scripts.recording import RecordingRunner


@pytest.fixture
def project(bare: Path) -> Project:
    tls = bare / "secrets/tls"
    tls.mkdir(parents=True)
    for path, mode in ((tls, 0o755), (tls / "fullchain.pem", 0o444), (tls / "privkey.pem", 0o444)):
        path.touch()
        path.chmod(mode)
    files = "compose.yaml:compose.dev.yaml"
    return Project(bare, {"COMPOSE_FILE": files, "STATE_DIR": str(bare / "state")})


def faults(project: Project) -> list[str]:
    return [f"{each.subject}: {each.fault}" for each in mounted_files.judge(project)]


def test_a_checkout_of_an_open_umask_has_no_fault(project: Project) -> None:
    assert faults(project) == []


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("nginx", 0o700),
        ("redis/redis.conf", 0o640),
        ("api/main.py", 0o600),
        ("postgres/entrypoint.sh", 0o744),
    ],
)
def test_the_modes_that_a_umask_took_are_given_back(
    runner: RecordingRunner, project: Project, path: str, mode: int
) -> None:
    file = project.root / path
    file.chmod(mode)
    is_program = bool(mode & 0o100)
    assert faults(project) == [], "the scripts mend it"
    assert mounted_files.open_modes(runner, project) == [path.partition("/")[0]]
    needed = 0o005 if is_program else 0o004
    assert file.stat().st_mode & needed == needed
    assert bool(file.stat().st_mode & 0o001) == is_program, "no file becomes a program"
    assert mounted_files.open_modes(runner, project) == []
    assert len(runner.ran) == 1


def test_modes_of_another_owner_are_refused_by_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "redis/redis.conf").chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(mounted_files, "_is_ours", lambda path: path.stat().st_uid == os.geteuid())
    (fault,) = mounted_files.judge(project)
    assert fault.fault.startswith(f"{project.root}/redis/redis.conf cannot be read")
    assert fault.fix == f"chmod -R o+rX {project.root}/redis, as its owner"


@pytest.mark.parametrize("path", ["redis/redis.conf", "nginx/entrypoint.sh"])
def test_windows_line_ends_are_refused_by_name(project: Project, path: str) -> None:
    file = project.root / path
    file.write_bytes(b"#!/bin/sh\r\nexit\r\n")
    (fault,) = mounted_files.judge(project)
    assert fault.fault.startswith(f"{file} has Windows line ends (CRLF)")
    assert fault.fix == f"sed -i 's/\\r$//' {file}"
    file.write_bytes(b"\0\r\n")
    assert faults(project) == [], "it is no text"


def test_a_copy_of_nginx_files_is_open_whatever_the_checkout_s_modes_are(
    runner: RecordingRunner, project: Project
) -> None:
    for path in (project.root / "nginx", *(project.root / "nginx").rglob("*")):
        path.chmod(0o700 if path.is_dir() or path.suffix == ".sh" else 0o600)
    runner.reply("docker run", Result(0))
    edge.install(runner, project)
    assert mounted_files.list_closed(project.nginx_folder / "current/") == []


@pytest.mark.parametrize(
    ("target", "is_refused"),
    [
        ("../../archive/fullchain1.pem", True),
        ("{folder}/real.pem", True),
        ("real.pem", False),
        ("missing.pem", False),
    ],
)
def test_a_link_that_leads_out_of_the_mounted_folder_is_refused(
    project: Project, target: str, *, is_refused: bool
) -> None:
    folder = project.certificate.parent
    (folder / "real.pem").touch(0o444)
    project.certificate.unlink()
    project.certificate.symlink_to(target.format(folder=folder))
    assert (faults(project) != []) == is_refused
    if is_refused:
        (fault,) = mounted_files.judge(project)
        assert fault.subject == "fullchain.pem"
        assert fault.fault.startswith(f"is a link to {target.format(folder=folder)}")
        assert fault.fix.endswith(f"install -m 0444 FILE {project.certificate}")


@pytest.mark.parametrize(("path", "mode"), [("", 0o700), ("privkey.pem", 0o600)])
def test_a_pair_that_nginx_cannot_read_is_refused_and_its_modes_are_the_owner_s(
    runner: RecordingRunner, project: Project, path: str, mode: int
) -> None:
    closed = project.certificate.parent / path
    closed.chmod(mode)
    assert any(f"{closed} cannot be read by nginx" in fault for fault in faults(project))
    assert mounted_files.open_modes(runner, project) == []
    assert closed.stat().st_mode & 0o777 == mode
