"""Checks the marks that the runner reads: a test needs the engine, or a test counts losses."""

import ast
import re
from pathlib import Path

from tests.contracts.tree import files, text
from tests.scheduling import SECONDS

# The functions and attributes by which a stack test counts lost, doubled or refused work.
LEDGERS = re.compile(r"\blost_and_doubled\b|\.failures\b|\bassert_only_the_end_is_lost\b")
MARK = "counts_losses"


def counting(source: str) -> dict[str, bool]:
    """Return the tests that use one of LEDGERS, directly or through a function of their module.

    The value is whether the test has the mark `counts_losses`.
    """
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    bodies = {name: "\n".join(map(ast.unparse, node.body)) for name, node in functions.items()}
    reading = {name for name, body in bodies.items() if LEDGERS.search(body)}
    known = 0
    while known < len(reading):
        known = len(reading)
        calls = re.compile(rf"\b(?:{'|'.join(sorted(reading))})\(")
        reading |= {name for name, body in bodies.items() if calls.search(body)}
    marks = {
        name: [ast.unparse(decorator) for decorator in functions[name].decorator_list]
        for name in reading
    }
    return {
        name: f"pytest.mark.{MARK}" in marks[name] for name in reading if name.startswith("test_")
    }


def test_every_test_that_counts_losses_has_its_mark() -> None:
    found = {
        f"{path}::{name}": is_marked
        for path in files("tests/stack/test_*.py")
        for name, is_marked in counting(text(path)).items()
    }
    assert len(found) > 30
    assert [name for name, is_marked in found.items() if not is_marked] == []


def test_a_test_without_the_mark_would_be_seen() -> None:
    direct = "def test_a(load):\n    assert load.lost_and_doubled() == (0, 0)\n"
    through = (
        "def check(load):\n    assert load.report.failures == []\n"
        "def test_b(load):\n    check(load)\n"
    )
    assert counting(direct) == {"test_a": False}
    assert counting(through) == {"test_b": False}
    assert counting(f"@pytest.mark.{MARK}\n{direct}") == {"test_a": True}
    assert counting("def test_c(stack):\n    assert stack.is_serving()\n") == {}


def engine_mark(source: str) -> str:
    """Return the mark that tells the runner that all tests of a module need the engine."""
    match = re.search(r"^pytestmark = .*pytest\.mark\.(docker|stack|drill)\b", source, re.MULTILINE)
    return match[1] if match else ""


def test_every_file_of_stack_tests_says_that_it_needs_the_engine() -> None:
    paths = files("tests/stack/test_*.py")
    assert len(paths) > 40
    assert [path for path in paths if not engine_mark(text(path))] == [], (
        "the runner treats these files as unit tests"
    )


def test_each_mark_is_explained_and_used() -> None:
    listed = re.findall(r'^    "(\w+): ', text("pyproject.toml").partition("markers = [")[2], re.M)
    sources = "".join(text(path) for path in files("tests/**/*.py"))
    assert MARK in listed
    assert [mark for mark in listed if f"pytest.mark.{mark}" not in sources] == []


def test_each_file_of_the_schedule_exists() -> None:
    assert [name for name in SECONDS if Path(name) not in files("tests/**/*.py")] == []
