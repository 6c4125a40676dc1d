"""One rename exchanges two databases; a killed command leaves a known state."""

from pathlib import Path

import pytest

from backup.failure import Failure
from backup.restore import directories
from backup.restore.directories import NAME

STAMP = "20261121T120000Z"


def database(root: Path, name: str, content: str) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "PG_VERSION").write_text(NAME, encoding="utf-8")
    (folder / "rows").write_text(content, encoding="utf-8")
    return folder


def rows(root: Path, name: str = NAME) -> str:
    return (root / name / "rows").read_text(encoding="utf-8")


def ready(root: Path, stamp: str = STAMP) -> None:
    directories.finish(database(root, f"{NAME}.restoring-{stamp}", "restored"), stamp)


def test_the_restored_database_takes_the_place_and_the_one_before_is_kept(tmp_path: Path) -> None:
    database(tmp_path, NAME, "present")
    ready(tmp_path)
    directories.swap(tmp_path, STAMP)
    assert (rows(tmp_path), rows(tmp_path, f"{NAME}.before-{STAMP}")) == ("restored", "present")
    state = directories.tidy(tmp_path)
    assert (list(state.old), state.tidied, state.has_database) == (
        [f"{NAME}.before-{STAMP}"],
        [],
        True,
    )
    directories.swap_back(tmp_path, STAMP)
    assert rows(tmp_path) == "present"
    directories.tidy(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [NAME]


def test_without_a_database_the_restored_one_becomes_it(tmp_path: Path) -> None:
    ready(tmp_path)
    assert not directories.tidy(tmp_path / "nowhere").has_database
    directories.swap(tmp_path, STAMP)
    assert rows(tmp_path) == "restored"
    with pytest.raises(Failure, match="there was no database before"):
        directories.swap_back(tmp_path, STAMP)


def test_a_half_restored_database_never_replaces_the_present_one(tmp_path: Path) -> None:
    database(tmp_path, NAME, "present")
    database(tmp_path, f"{NAME}.restored-{STAMP}", "half")
    with pytest.raises(Failure, match="not whole"):
        directories.swap(tmp_path, STAMP)
    assert rows(tmp_path) == "present"


def test_an_exchange_that_was_killed_in_its_middle_keeps_the_old_database(tmp_path: Path) -> None:
    """After the exchange, the old database has an earlier restore's mark and no final name."""
    old = database(tmp_path, NAME, "present")
    (old / directories.MARK).write_text("20250101T000000Z", encoding="utf-8")
    ready(tmp_path)
    directories._exchange(tmp_path / f"{NAME}.restored-{STAMP}", tmp_path / NAME)
    state = directories.tidy(tmp_path)
    assert list(state.old) == [f"{NAME}.before-{STAMP}"]
    assert (rows(tmp_path), rows(tmp_path, f"{NAME}.before-{STAMP}")) == ("restored", "present")


def test_a_restore_that_was_never_exchanged_is_removed_and_named(tmp_path: Path) -> None:
    database(tmp_path, NAME, "present")
    database(tmp_path, f"{NAME}.restoring-{STAMP}", "half")
    ready(tmp_path, "20261121T130000Z")
    state = directories.tidy(tmp_path)
    assert len(state.tidied) == 2
    assert [folder.name for folder in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.before-x/../../{NAME}", "ballast"])
def test_nothing_but_an_old_database_is_deleted(tmp_path: Path, name: str) -> None:
    database(tmp_path, NAME, "present")
    with pytest.raises(Failure, match="is not an old database"):
        directories.discard(tmp_path, [name])
    assert rows(tmp_path) == "present"
