"""No error ends a loop of the backup service, and a task runs when it is due."""

import time
from pathlib import Path
from typing import Any

import pytest

from backup import postgres, records, snapshot, tasks, witness
from backup.__main__ import WAIT_SECONDS, Service, _perform
from backup.policy import Policy
from backup.snapshot import Archiver, ArchiveState, Snapshot
from backup.tasks import Task

POLICY = Policy(
    full_hours=168, backup_hours=24, drill_hours=24, offsite_drill_hours=168, keep_days=14
)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("backup.__main__.RETRY_SECONDS", 0)
    return Service(POLICY)


def test_a_step_that_fails_in_any_way_is_repeated(service: Service) -> None:
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


def test_a_service_whose_loop_has_ended_has_no_snapshot(service: Service) -> None:
    service.snapshot = Snapshot(at=5.0)
    assert service.newest() == service.snapshot

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
    monkeypatch.setattr(records.hold_lock.__wrapped__, "__defaults__", (tmp_path,))  # type: ignore[attr-defined]

    def run(_: Policy) -> tasks.Outcome:
        raise RuntimeError("no thread")

    record = tasks.perform(Task("full", run, lambda *_: True), POLICY)
    assert (record.is_well, record.text) == (False, "RuntimeError: no thread")
    assert records.read("full", tmp_path) == record


@pytest.mark.parametrize(
    ("minutes_ago", "is_well", "is_due"),
    [(1, False, False), (6, False, True), (6, True, False), (25 * 60, True, True)],
)
def test_a_failed_task_runs_again_soon_however_recent_its_last_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes_ago: float, is_well: bool, is_due: bool
) -> None:
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    now = 1_700_000_000.0
    ended = now - 60 * minutes_ago
    success = ended if is_well else ended - 60
    records.write(records.Record("drill", ended, 1, is_well, "", success), tmp_path)
    assert tasks.DRILL.is_due(POLICY, ArchiveState(), now) == is_due


@pytest.mark.parametrize(
    ("minutes_ago", "is_well", "is_due"),
    [(60, True, True), (1, True, True), (1, False, False), (6, False, True)],
)
def test_a_full_backup_is_due_at_once_if_the_present_database_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes_ago: float, is_well: bool, is_due: bool
) -> None:
    """State after an upgrade of Postgres; a failed backup is still retried only after a pause."""
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    now = 1_700_000_000.0
    ended = now - 60 * minutes_ago
    records.write(records.Record("full", ended, 1, is_well, "", ended), tmp_path)
    assert tasks.FULL.is_due(POLICY, ArchiveState(is_empty=True), now) == is_due


@pytest.mark.parametrize(
    ("archive", "read_again"),
    [
        (ArchiveState(is_empty=True), ArchiveState("X")),
        (ArchiveState(gap="a gap"), ArchiveState("X")),
        (ArchiveState(is_replaced=True), ArchiveState("X")),
        (ArchiveState(gap="a gap"), ArchiveState(gap="a gap")),
    ],
)
def test_the_archive_is_read_again_before_it_makes_a_backup_due(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    archive: ArchiveState,
    read_again: ArchiveState,
) -> None:
    """The last read may be older than the newest backup, and would then cause a needless backup."""
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    now = time.time()
    for task in ("full", "incremental", "drill"):
        records.write(records.Record(task, now, 1, True, "", now), tmp_path)
    performed: list[str] = []
    monkeypatch.setattr(tasks, "perform", lambda task, _: performed.append(task.name))
    monkeypatch.setattr(snapshot, "read_archive", lambda: read_again)
    service.is_registered, service.archive = True, archive
    service.schedule()
    assert performed == (["incremental"] if read_again.needs_backup else [])
    assert service.archive == read_again


def test_a_repository_that_cannot_be_read_leaves_the_archive_as_it_was_read_last(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "write_row", lambda: None)
    service.archive = ArchiveState("X", newest=time.time())
    faulty = Snapshot(faults={"repository": "no answer"}, archive=ArchiveState())
    monkeypatch.setattr(snapshot, "take", lambda: faulty)
    service.watch()
    assert service.archive.label == "X"
    monkeypatch.setattr(snapshot, "take", lambda: Snapshot(archive=ArchiveState("Y")))
    service.watch()
    assert service.archive.label == "Y"


def test_postgres_is_woken_if_it_archives_nothing_and_not_again_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(postgres, "ask", asked.append)
    now = 1_700_000_000.0
    service.is_written = True

    def wake(seconds_ago: float, waiting: int = 0) -> list[str]:
        asked.clear()
        service.snapshot = Snapshot(
            archiver=Archiver(waiting=waiting), archive=ArchiveState("X", now - seconds_ago)
        )
        service._wake_archiver(now)
        return asked

    assert wake(39) == []
    assert wake(41, waiting=1) == [], "a segment waits, because archiving fails"
    assert wake(41) == ["select pg_reload_conf()"]
    assert wake(41) == []
    service.woken = now - 41
    assert wake(41) == ["select pg_reload_conf()"]
    service.woken, service.is_written = 0, False
    assert wake(41) == [], "without a new row there is nothing to archive"


def test_a_task_by_hand_reports_that_it_waits_for_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = []

    def perform(task: Task, _: Policy, *, wait_seconds: float = 0) -> records.Record:
        waits.append(wait_seconds)
        return records.Record(task.name, text="full X", seconds=2, is_well=True)

    monkeypatch.setattr("backup.policy.load", lambda: POLICY)
    monkeypatch.setattr(tasks, "perform", perform)
    monkeypatch.setattr(records, "is_running", lambda: True)
    answer = '{"result": {"text": "full X", "seconds": 2}}'
    assert _perform(tasks.FULL) == answer
    assert "another task is running, and this one waits for its end" in capsys.readouterr().out
    monkeypatch.setattr(records, "is_running", lambda: False)
    assert _perform(tasks.FULL) == answer
    assert capsys.readouterr().out == ""
    assert waits == [WAIT_SECONDS] * 2
