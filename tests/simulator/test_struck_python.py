"""The runner that strikes a real story does what the fault of the simulated one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator import faults
from tests.stack.harness import ROOT
from tests.stack.struck_python import PLAN

STORY = """
from pathlib import Path
from stack.commands.command import Command
from tests.stack.struck_python import StruckRunner

runner = StruckRunner()
runner.run(Command(["touch", "first"]))
runner.run(Command(["touch", "first"]))
runner.append(Path("state/ledger").absolute(), "a line")
runner.run(Command(["touch", "last"]))
"""


def run(folder: Path, strike: tuple[str, str, int]) -> tuple[int, list[str], list[bool]]:
    """Run the story; return how it ended, its files, and whether each of its steps was struck."""
    (folder / "state").mkdir()
    (folder / "state/ledger").touch()
    plan = {"folder": str(folder), "project": "test", "record": str(folder / "record")}
    paths = f"{ROOT / 'scripts'}:{ROOT}"
    environment = {**os.environ, "PYTHONPATH": paths, PLAN: json.dumps({**plan, "strike": strike})}
    words = [sys.executable, "-c", STORY]
    ended = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    files = [name for name in ("first", "last") if (folder / name).exists()]
    record = (folder / "record").read_text(encoding="utf-8").splitlines()
    return ended.returncode, files, [json.loads(line)["is_struck"] for line in record]


@pytest.mark.parametrize(
    ("mode", "code", "files"),
    [
        (faults.KILLED_BEFORE, -9, ["first"]),
        (faults.KILLED_AFTER, -9, ["first", "last"]),
        (faults.FAILS, 1, ["first"]),
        (faults.FAILS_AFTER, 1, ["first", "last"]),
        (faults.STOPPED, -15, ["first", "last"]),
    ],
)
def test_a_fault_strikes_before_or_after_the_step(
    tmp_path: Path, mode: str, code: int, files: list[str]
) -> None:
    assert run(tmp_path, (mode, "touch last", 1)) == (code, files, [False, False, False, True])


def test_a_fault_strikes_one_of_the_steps_of_a_kind(tmp_path: Path) -> None:
    assert run(tmp_path, (faults.KILLED_BEFORE, "touch first", 2)) == (-9, ["first"], [False, True])


def test_an_append_that_fails_leaves_half_a_line(tmp_path: Path) -> None:
    code, files, struck = run(tmp_path, (faults.FAILS, "append to state/ledger", 1))
    assert (code, files, struck) == (1, ["first"], [False, False, True])
    assert (tmp_path / "state/ledger").read_text(encoding="utf-8") == "a l"
