"""The loops of the backup service outlive whatever goes wrong in them."""

from pathlib import Path
from typing import Any

import pytest

from backup import pgbackrest, postgres, records, tasks
from backup.__main__ import WAIT_SECONDS, Service, _perform
from backup.observation import Archiver, Snapshot
from backup.settings import Settings
from backup.tasks import Archived, Task

SETTINGS = Settings(
    full_hours=168, backup_hours=24, drill_hours=24, offsite_drill_hours=168, keep_days=14
)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("backup.__main__.RETRY_SECONDS", 0)
    return Service(SETTINGS)


def test_a_step_that_fails_in_whatever_way_is_tried_again(service: Service) -> None:
    errors = [
        OSError("No space left on device"),
        RuntimeError("no thread"),
        IndexError("none"),
        MemoryError(),
    ]

    def step() -> float:
        if errors:
            raise errors.pop()
        service.ending.set()
        return 0

    service.repeat(step)
    assert errors == []


def test_a_loop_that_has_ended_is_seen(service: Service) -> None:
    service.seen = tasks_seen = service.seen.__class__(at=5.0)
    assert service.newest() == tasks_seen

    class Ended:
        def is_alive(self) -> bool:
            return False

    ended: Any = Ended()
    service.loops = [ended]
    assert service.newest().at == 0


def test_a_task_that_fails_in_an_unexpected_way_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("read", "write"):
        monkeypatch.setattr(getattr(records, name), "__defaults__", (tmp_path,))
    monkeypatch.setattr(records.running.__wrapped__, "__defaults__", (tmp_path,))  # type: ignore[attr-defined]

    def run(_: Settings) -> tasks.Result:
        raise RuntimeError("no thread")

    record = tasks.perform(Task("full", run, lambda *_: True), SETTINGS)
    assert (record.is_well, record.text) == (False, "RuntimeError: no thread")
    assert records.read("full", tmp_path) == record


@pytest.mark.parametrize(
    ("minutes_ago", "is_well", "is_due"),
    [(1, False, False), (6, False, True), (6, True, False), (25 * 60, True, True)],
)
def test_a_task_that_failed_is_tried_again_soon_however_young_its_last_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes_ago: float, is_well: bool, is_due: bool
) -> None:
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    now = 1_700_000_000.0
    ended = now - 60 * minutes_ago
    success = ended if is_well else ended - 60
    records.write(records.Record("drill", ended, 1, is_well, "", success), tmp_path)
    assert tasks.DRILL.is_due(SETTINGS, now) == is_due


@pytest.mark.parametrize(
    ("minutes_ago", "is_well", "is_due"),
    [(60, True, True), (1, True, True), (1, False, False), (6, False, True)],
)
def test_a_full_backup_is_due_at_once_where_the_present_database_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes_ago: float, is_well: bool, is_due: bool
) -> None:
    """After an upgrade of Postgres, say, however young the last one is; one that failed waits as ever."""
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    monkeypatch.setattr(tasks, "seen", Archived(is_empty=True))
    monkeypatch.setattr(pgbackrest, "backups_of_the_newest", list)
    now = 1_700_000_000.0
    ended = now - 60 * minutes_ago
    records.write(records.Record("full", ended, 1, is_well, "", ended), tmp_path)
    assert tasks.FULL.is_due(SETTINGS, now) == is_due


@pytest.mark.parametrize(
    "before", [Archived(is_empty=True), Archived(gap="a gap"), Archived(is_replaced=True)]
)
def test_what_asks_for_a_backup_is_looked_at_again_when_one_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Archived
) -> None:
    """The watch may have looked before: one backup is enough."""
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    now = 1_700_000_000.0
    records.write(records.Record("full", now, 1, True, "", now), tmp_path)
    records.write(records.Record("incremental", now, 1, True, "", now), tmp_path)
    monkeypatch.setattr(tasks, "seen", before)
    monkeypatch.setattr(tasks, "look", lambda: Archived("X"))
    assert not tasks.FULL.is_due(SETTINGS, now)
    assert not tasks.INCREMENTAL.is_due(SETTINGS, now)


def test_postgres_is_woken_where_it_archives_nothing_and_not_again_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(postgres, "ask", asked.append)
    now = 1_700_000_000.0
    service.is_written = True

    def seen(seconds_ago: float, waiting: int = 0) -> list[str]:
        asked.clear()
        service.seen = Snapshot(
            archiver=Archiver(waiting=waiting), archive=Archived("X", now - seconds_ago)
        )
        service._wake(now)
        return asked

    assert seen(39) == []
    assert seen(41, waiting=1) == [], "it does archive, and cannot"
    assert seen(41) == ["select pg_reload_conf()"]
    assert seen(41) == []
    service.woken = now - 41
    assert seen(41) == ["select pg_reload_conf()"]
    service.woken, service.is_written = 0, False
    assert seen(41) == [], "where no row is written there is nothing to archive"


def test_a_task_by_hand_says_that_it_waits_for_another_and_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = []

    def perform(task: Task, _: Settings, *, wait_seconds: float = 0) -> records.Record:
        waits.append(wait_seconds)
        return records.Record(task.name, is_well=True)

    monkeypatch.setattr("backup.settings.load", lambda: SETTINGS)
    monkeypatch.setattr(tasks, "perform", perform)
    monkeypatch.setattr(records, "is_running", lambda: True)
    assert _perform(tasks.FULL) == 0
    assert "another task is running, and this one waits for its end" in capsys.readouterr().out
    monkeypatch.setattr(records, "is_running", lambda: False)
    assert _perform(tasks.FULL) == 0
    assert capsys.readouterr().out == ""
    assert waits == [WAIT_SECONDS] * 2
