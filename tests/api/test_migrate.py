"""Tests the decisions of `python -m api.migrate` before its first query."""

from pathlib import Path

import pytest
from alembic.config import Config

from api import migrate
from api.migrating import revisions
from tests.api.settings_for_tests import make_settings

ORDER = ("pre", "pre", "post", "pre", "post", "post")


def identifier(number: int) -> str:
    return f"2026_01_0{number + 1}_0000"


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six migrations: pre, pre, post, pre, post, post."""
    folder = tmp_path / "versions"
    folder.mkdir()
    for number, phase in enumerate(ORDER):
        parent = f'"{identifier(number - 1)}"' if number else "None"
        text = f'revision = "{identifier(number)}"\ndown_revision = {parent}\n'
        (folder / f"{identifier(number)}_{phase}_x.py").write_text(text, encoding="utf-8")
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    monkeypatch.setattr(migrate, "alembic_config", lambda: config)
    monkeypatch.setattr(revisions, "VERSIONS", folder)
    return folder


@pytest.mark.parametrize(
    ("before", "target"),
    [
        (None, identifier(1)),
        (identifier(0), identifier(1)),
        (identifier(1), identifier(1)),
        (identifier(2), identifier(3)),
        (identifier(5), identifier(5)),
    ],
)
@pytest.mark.usefixtures("versions")
def test_phase_pre_goes_as_far_as_the_first_post(before: str | None, target: str) -> None:
    assert migrate.leading_pre(before) == target


@pytest.mark.usefixtures("versions")
def test_an_empty_database_before_a_post_stays_empty(versions: Path) -> None:
    first = versions / f"{identifier(0)}_pre_x.py"
    first.rename(versions / f"{identifier(0)}_post_x.py")
    assert migrate.leading_pre(None) is None


@pytest.mark.usefixtures("versions")
def test_a_release_is_ready_where_only_post_migrations_are_missing() -> None:
    code = revisions.code_migrations.__wrapped__()
    assert code.head == identifier(5)
    assert code.enough == {identifier(3), identifier(4), identifier(5)}
    assert [code.accepts(identifier(number)) for number in range(6)] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert code.accepts("2099_01_01_0000")
    assert not code.accepts(None)


@pytest.mark.parametrize(
    "arguments", [["--phase", "post"], ["--phase", "pre", "--sql", "base:head"]]
)
def test_no_other_phase_can_be_asked_for(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        migrate.main(arguments)
    assert ended.value.code == 2


def test_production_needs_the_confirmation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLIPWAY_MIGRATE_CONFIRM", raising=False)
    monkeypatch.setattr(migrate, "load_settings", lambda _: make_settings())
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
    assert migrate.main([]) == 2
    assert "error: migrations in production run through the scripts" in capsys.readouterr().err


def test_a_budget_that_is_no_number_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIPWAY_MIGRATE_CONFIRM", "yes")
    monkeypatch.setenv("SLIPWAY_MIGRATE_BUDGET_SECONDS", "soon")
    monkeypatch.setattr(migrate, "load_settings", lambda _: make_settings())
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
    assert migrate.main([]) == 2
    assert "error: SLIPWAY_MIGRATE_BUDGET_SECONDS is not a number" in capsys.readouterr().err
