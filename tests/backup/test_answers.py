"""Every command of the package ends with one answer on stdout, which the scripts parse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backup.restore import attempt, directories
from tests.contracts.tree import ROOT


def run(*words: str) -> tuple[int, dict[str, Any]]:
    """Run a command of the package, and return its exit code and its last line."""
    process = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stderr == ""
    return process.returncode, json.loads(process.stdout.splitlines()[-1])


def test_a_command_that_succeeds_answers_with_facts(tmp_path: Path) -> None:
    (tmp_path / f"{directories.NAME}.restoring-1").mkdir()
    code, answer = run("backup.restore", "tidy", "--root", str(tmp_path))
    assert code == 0
    assert answer == {
        "result": {
            "has_database": False,
            "old": {},
            "tidied": [f"{directories.NAME}.restoring-1 of an interrupted restore is removed"],
        }
    }


def test_a_command_that_fails_answers_with_an_observation_and_hints(tmp_path: Path) -> None:
    code, answer = run("backup.restore", "swap", "--root", str(tmp_path), "--stamp", "1")
    assert code == 1
    assert answer == {
        "error": {
            "observation": f"{directories.NAME}.restored-1 is not there, or not whole",
            "hints": ["./scripts/restore.sh begins anew"],
        }
    }


def test_an_unexpected_error_is_an_answer_too(tmp_path: Path) -> None:
    words = ("discard", f"{directories.NAME}.before-1", "--root", str(tmp_path))
    code, answer = run("backup.restore", *words)
    assert code == 1
    assert answer["error"]["observation"].startswith("FileNotFoundError: ")


def test_a_service_that_does_not_run_is_an_answer_too() -> None:
    code, answer = run("backup", "status")
    assert code == 1
    assert "the service does not answer" in answer["error"]["observation"]


def test_an_attempt_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    folder = tmp_path / "restoring"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), attempt.removed_on_failure(folder):
        raise KeyboardInterrupt
    assert not folder.exists()
    folder.mkdir()
    with attempt.removed_on_failure(folder):
        pass
    assert folder.exists()
