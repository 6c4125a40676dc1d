"""A task's record survives a restart, no record means never, and one task runs at a time."""

import fcntl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backup import records
from backup.failure import Failure
from backup.records import Record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("full", 5.0, 1.5, True, "full X, 32 MB in 1 s", 5.0, {"label": "X"})
    records.write(record, tmp_path)
    assert records.read("full", tmp_path) == record
    assert records.read("drill", tmp_path) == Record("drill")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"task": "full", "unknown": 1}'])
def test_a_record_that_cannot_be_read_counts_as_never(tmp_path: Path, content: str) -> None:
    (tmp_path / "full.json").write_text(content, encoding="utf-8")
    assert records.read("full", tmp_path).last_success == 0
    assert not records.read("full", tmp_path).is_well


def test_a_second_task_is_refused_with_the_name_of_the_first_and_the_lock_is_free_afterwards(
    tmp_path: Path,
) -> None:
    with records.hold_lock("drill", tmp_path), pytest.raises(Failure, match="drill is running"):  # noqa: SIM117
        with records.hold_lock("full", tmp_path):
            pytest.fail("both tasks hold the lock")
    with records.hold_lock("full", tmp_path):
        pass


def test_a_task_that_waits_begins_when_the_other_has_ended(tmp_path: Path) -> None:
    with (tmp_path / "running.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ending = threading.Timer(2 * records.GLANCE_SECONDS, fcntl.flock, (file, fcntl.LOCK_UN))
        ending.start()
        with records.hold_lock("full", tmp_path, wait_seconds=60):
            assert ending.finished.is_set()


def test_a_lock_without_a_holders_name_is_refused_too(tmp_path: Path) -> None:
    with (tmp_path / "running.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(Failure, match="another task is running"),
            records.hold_lock("full", tmp_path),
        ):
            pytest.fail("both tasks hold the lock")


@pytest.mark.parametrize("ahead", [Record("full", ended=9e9), Record("full", last_success=9e9)])
def test_a_record_of_a_clock_that_was_ahead_counts_as_never(tmp_path: Path, ahead: Record) -> None:
    records.write(ahead, tmp_path)
    assert records.read("full", tmp_path) == Record("full")


def test_a_task_that_ends_between_two_readings_was_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Record("full", 5.0, 1.5, True, "full X", 5.0)
    begun = replace(ended, facts={records.BEGUN: 4.0})

    def is_running(folder: Path) -> bool:
        records.write(ended, folder)
        return False

    records.write(begun, tmp_path)
    assert records.read("full", tmp_path).text == "it was cut off"
    monkeypatch.setattr(records, "is_running", is_running)
    assert records.read("full", tmp_path) == ended
