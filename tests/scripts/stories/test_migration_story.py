"""`migration.sh` writes a file that the rules of migrations accept."""

import ast
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stack.failure import USAGE, Failure
from stack.rules import migrations
from stack.runner import RealRunner
from stack.stories import migration
from stack.terminal import Terminal

from tests.contracts.tree import ROOT

NOW = datetime(2031, 5, 6, 7, 8, 59, tzinfo=UTC)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the migrations of this checkout and the template."""
    shutil.copytree(ROOT / "api/migrations", tmp_path / "api/migrations")
    return tmp_path


def write(root: Path, phase: str, name: str, now: datetime = NOW) -> None:
    migration.run(RealRunner(), root, phase, name, now)


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_the_file_is_the_new_head_and_passes_the_lint(checkout: Path, phase: str) -> None:
    parent = migrations.head(checkout)
    write(checkout, phase, "add_isbn")
    newest = migrations.revisions(checkout)[-1]
    assert (newest.identifier, newest.phase, newest.name) == ("2031_05_06_0708", phase, "add_isbn")
    assert migrations.revisions(checkout)[-2].identifier == parent
    assert migrations.lint(checkout) == []


def test_the_path_is_printed_on_a_terminal_too(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    migration.run(RealRunner(Terminal()), checkout, "pre", "add_isbn", NOW)
    assert "api/migrations/versions/2031_05_06_0708_pre_add_isbn.py" in capfd.readouterr().out


def test_a_migration_that_is_not_python_is_named(checkout: Path) -> None:
    (checkout / migrations.VERSIONS / "2031_05_06_0700_pre_bad.py").write_text("x(")
    with pytest.raises(Failure, match=r"2031_05_06_0700_pre_bad\.py is not Python"):
        write(checkout, "pre", "add_isbn")


def test_two_of_one_minute_have_two_names_and_the_order_in_which_they_were_made(
    checkout: Path,
) -> None:
    write(checkout, "pre", "first")
    write(checkout, "pre", "second")
    names = [revision.name for revision in migrations.revisions(checkout)]
    assert names[-2:] == ["first", "second"]
    files = sorted(path.name for path in (checkout / migrations.VERSIONS).glob("2031*.py"))
    assert files == ["2031_05_06_0708_pre_first.py", "2031_05_06_0709_pre_second.py"]


def test_one_that_is_made_before_its_parent_s_date_comes_after_it(checkout: Path) -> None:
    write(checkout, "pre", "first")
    write(checkout, "pre", "second", datetime(2030, 1, 1, tzinfo=UTC))
    assert migrations.head(checkout) == "2031_05_06_0709"


def test_a_file_that_nobody_filled_in_cannot_be_applied(checkout: Path) -> None:
    write(checkout, "pre", "add_isbn")
    path = checkout / migrations.VERSIONS / "2031_05_06_0708_pre_add_isbn.py"
    (upgrade,) = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    ]
    space: dict[str, object] = {}
    exec(compile(ast.Module([upgrade], []), str(path), "exec"), space)  # noqa: S102  file of a test
    with pytest.raises(NotImplementedError, match="2031_05_06_0708"):
        space["upgrade"]()  # type: ignore[operator]


@pytest.mark.parametrize(
    "name", ["Add_isbn", "add-isbn", "add isbn", "", "../x", "add__isbn", "_", "a" * 101]
)
def test_another_name_is_a_usage_error_and_writes_nothing(checkout: Path, name: str) -> None:
    before = sorted((checkout / migrations.VERSIONS).iterdir())
    with pytest.raises(Failure) as raised:
        write(checkout, "pre", name)
    assert raised.value.code == USAGE
    assert "add_isbn" in raised.value.hints[0]
    assert sorted((checkout / migrations.VERSIONS).iterdir()) == before
