"""Tests the suite's runner on a small suite: parts, rerun of failed tests, closing lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import run
from tests.contracts.tree import ROOT

MARKS = ("docker", "stack", "drill", "nightly", "alone", "counts_losses")
# Fails only in its first run.
FLAKY = """
    file = Path(__file__).with_name("{0}")
    was_there = file.exists()
    file.touch()
    assert was_there
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A checkout with the runner, the tests' configuration, and one test of the unit part."""
    (tmp_path / "tests").mkdir()
    for name in ("run.py", "conftest.py", "scheduling.py", "__init__.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    marks = ", ".join(f'"{mark}: a mark"' for mark in MARKS)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n"
        f'testpaths = ["tests"]\npythonpath = ["."]\nmarkers = [{marks}]\n',
        encoding="utf-8",
    )
    write(tmp_path, "unit", "assert True")
    return tmp_path


def write(suite: Path, name: str, body: str, *marks: str) -> None:
    """Write a file with one test."""
    decorators = "".join(f"@pytest.mark.{mark}\n" for mark in marks)
    lines = "".join(f"    {line.strip()}\n" for line in body.strip().splitlines())
    text = f"from pathlib import Path\n\nimport pytest\n\n\n{decorators}def test_{name}():\n{lines}"
    (suite / f"tests/test_{name}.py").write_text(text, encoding="utf-8")


def start(suite: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the suite as ./scripts/test.sh does."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }
    environment.pop(run.REPORT, None)
    return subprocess.run(
        [sys.executable, "tests/run.py", *words],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def table(output: str) -> dict[str, tuple[int, int]]:
    """Return the numbers of tests and of failures that the closing table shows for each part."""
    rows = re.findall(r"^(\S.*?) +(\d+) +(\d+) +\d+ min \d\d s +\d+%$", output, re.MULTILINE)
    return {name: (int(tests), int(failed)) for name, tests, failed in rows}


def test_each_test_runs_in_one_part_and_what_failed_runs_once_more(suite: Path) -> None:
    write(suite, "beside", "assert True", "stack")
    write(suite, "timed", "assert True", "drill", "alone")
    write(suite, "long", "assert False", "stack", "nightly")
    write(suite, "left_out", "pytest.skip('not here')", "docker")
    write(suite, "flaky", FLAKY.format("seen"))
    write(suite, "lost", FLAKY.format("lost"), "counts_losses")
    write(suite, "unclean", "request.addfinalizer(lambda: 1 / 0)")
    file = suite / "tests/test_unclean.py"
    file.write_text(file.read_text("utf-8").replace("unclean()", "unclean(request)"), "utf-8")
    ended = start(suite)
    assert table(ended.stdout) == {
        "unit": (4, 3),
        "stacks side by side": (2, 0),
        "alone": (1, 0),
        "once more": (2, 1),
    }
    closing = ended.stdout.splitlines()
    assert [line for line in closing if line.startswith(("flaky: ", "failed: "))] == [
        "flaky: tests/test_flaky.py::test_flaky",
        "failed: tests/test_lost.py::test_lost",
        "failed: tests/test_unclean.py::test_unclean",
    ]
    assert (ended.returncode, closing[-1]) == (1, "4 passed, 2 failed, 1 skipped")
    flaky = (suite / "test-results/flaky.txt").read_text(encoding="utf-8")
    assert flaky == "tests/test_flaky.py::test_flaky\n"
    phases = (suite / "test-results/alone.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(phase)["phase"] for phase in phases] == ["setup", "call", "teardown"]


def test_a_file_that_cannot_be_read_fails_the_run(suite: Path) -> None:
    write(suite, "unreadable", "return (")
    ended = start(suite, "unit")
    assert ended.returncode == 1
    assert "broken: pytest ended the part 'unit' with exit code" in ended.stdout


def test_a_test_that_is_named_runs_by_itself(suite: Path) -> None:
    write(suite, "long", "assert True", "stack", "nightly")
    ended = start(suite, "tests/test_long.py::test_long")
    assert (ended.returncode, table(ended.stdout)) == (0, {})
    assert "1 passed" in ended.stdout.splitlines()[-1]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate folder for the files of a run."""
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    return tmp_path


def part(name: str, code: int = 0, **outcomes: str) -> run.Part:
    return run.Part(name, "", code=code, outcomes=outcomes)


@pytest.mark.parametrize(
    ("ended", "again", "code", "last"),
    [
        ([part("unit", a="passed")], None, 0, "1 passed, 0 failed"),
        ([part("unit")], None, 1, "0 passed, 0 failed"),
        ([part("unit", a="skipped")], None, 1, "0 passed, 0 failed, 1 skipped"),
        (
            [part("unit", 1, a="failed", b="failed", c="passed")],
            part("once more", a="passed", b="passed"),
            0,
            "3 passed, 0 failed",
        ),
        (
            [part("unit", 1, a="failed", b="failed", c="failed")],
            part("once more", a="passed", b="passed", c="passed"),
            1,
            "3 passed, 0 failed",
        ),
        (
            [part("unit", 1, a="failed", b="passed")],
            part("once more", 1, a="failed"),
            1,
            "1 passed, 1 failed",
        ),
        ([part("unit", 1, a="passed")], None, 1, "1 passed, 0 failed"),
        ([part("unit", a="passed"), part("alone", 2)], None, 1, "1 passed, 0 failed"),
    ],
    ids=[
        "all passed",
        "no test",
        "all skipped",
        "two flaky",
        "three flaky",
        "failed twice",
        "pytest failed without a failed test",
        "a part was interrupted",
    ],
)
def test_how_a_run_ends(
    ended: list[run.Part],
    again: run.Part | None,
    code: int,
    last: str,
    *,
    results: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert results.is_dir()
    assert run.print_summary(ended, again) == code
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", ["unit", "stacks side by side", "alone"]),
        ("unit", ["unit"]),
        ("stack", ["stacks side by side", "alone"]),
        ("all", ["unit", "stacks side by side", "alone"]),
    ],
)
def test_a_word_selects_its_parts(word: str, expected: list[str]) -> None:
    chosen = run.parts(word)
    assert [part.name for part in chosen] == expected
    assert all(("nightly" in part.expression) is (word != "all") for part in chosen)


def test_ctrl_c_lets_a_part_tear_down_its_stacks(suite: Path) -> None:
    write(
        suite,
        "slow",
        """
        import time
        Path("is_running").touch()
        try:
            time.sleep(60)
        finally:
            time.sleep(1)
            Path("is_clean").touch()
        """,
    )
    lines = (suite / "tests/test_slow.py").read_text("utf-8")
    for line in ("time.sleep(60)", "time.sleep(1)", 'Path("is_clean").touch()'):
        lines = lines.replace(f"    {line}", f"        {line}")
    (suite / "tests/test_slow.py").write_text(lines, "utf-8")
    # The signal may be ignored in this run, for example in one that a shell started with `&`.
    command = ["env", "--default-signal=INT", sys.executable, "tests/run.py", "unit"]
    inner = subprocess.Popen(command, cwd=suite, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (suite / "is_running").exists():
        assert time.monotonic() < deadline, "the test did not start"
        time.sleep(0.1)
    os.killpg(inner.pid, signal.SIGINT)
    assert inner.wait(60) != 0
    assert (suite / "is_clean").exists(), "pytest was killed before its teardown"


@pytest.mark.parametrize("options", [["-k", "name"], ["-m", "docker"], ["tests/suite/test_run.py"]])
def test_a_selection_of_tests_is_one_part(options: list[str]) -> None:
    assert run.is_chosen(options)
    assert not run.is_chosen(["-x", "-q"])


def test_help_needs_no_test_environment() -> None:
    shown = subprocess.run(
        ["./scripts/test.sh", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert "--keep-stack tests/stack/test_items.py::test_NAME" in shown
    assert not re.search(r"^(?:import|from) (?!__future__)\w*pytest", run_source(), re.MULTILINE)


def run_source() -> str:
    return (ROOT / "tests/run.py").read_text(encoding="utf-8")
