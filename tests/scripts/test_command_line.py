"""The scripts as a person types them: usage, exit codes and where each word of an error goes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.conftest import ROOT

COMMANDS = ("up", "status", "logs")


def script(root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "DOCKER_HOST": "unix:///nonexistent/engine.sock"}
    argv = [str(root / f"scripts/{name}.sh"), *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False, cwd="/")


@pytest.fixture
def copy(checkout: Path) -> Path:
    """A checkout with the scripts, on a machine whose engine cannot be reached."""
    shutil.copytree(ROOT / "scripts", checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return checkout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_given_from_any_directory(name: str) -> None:
    done = script(ROOT, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: scripts/{name}.sh")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error(name: str) -> None:
    done = script(ROOT, name, "--frobnicate")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: scripts/{name}.sh" in done.stderr
    assert "--frobnicate" in done.stderr


@pytest.mark.parametrize("arguments", [("--lines", "many"), ("--lines", "-5"), ("--lines", "0")])
def test_a_number_of_lines_that_makes_no_sense_is_a_usage_error(copy: Path, arguments: tuple[str, str]) -> None:
    assert script(copy, "logs", *arguments).returncode == 2


def test_no_command_is_a_usage_error() -> None:
    argv = ["python3", "-m", "stack"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "usage: scripts" in done.stderr


@pytest.mark.parametrize("name", ["status", "logs"])
def test_without_env_a_script_fails_with_observation_hint_runbook_and_what_serves(copy: Path, name: str) -> None:
    (copy / ".env").unlink()
    done = script(copy, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: there is no .env here",
        "HINT: ./scripts/up.sh creates it",
        "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration",
        "live: unknown, because .env cannot be read",
    ]


def test_a_misspelt_key_is_refused_and_its_value_is_not_printed(copy: Path) -> None:
    with (copy / ".env").open("a", encoding="utf-8") as file:
        file.write("DATABASE_PASWORD=hunter2\n")
    done = script(copy, "status")
    assert done.returncode == 1
    assert "DATABASE_PASWORD" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_without_an_engine_the_status_is_shown_and_is_not_well(copy: Path) -> None:
    done = script(copy, "status")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert lines[0].startswith("!!  live")
    assert lines[-1].startswith("live: nothing answers at https://localhost:")
    assert lines[-1].endswith("running: no container")


def test_a_request_id_that_is_none_is_a_usage_error(copy: Path) -> None:
    done = script(copy, "logs", "--request", "a;b")
    assert done.returncode == 2
    assert "is not a request id" in done.stderr
