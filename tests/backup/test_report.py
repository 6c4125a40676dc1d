"""Each line of status.sh is ok or not; a source that does not answer is not ok."""

from dataclasses import replace
from pathlib import Path

import pytest

from backup import records, report
from backup.policy import Policy
from backup.records import Record
from backup.report import Row
from backup.snapshot import Archiver, ArchiveState, Snapshot

NOW = 1_700_000_000.0
HOUR = 3600.0
POLICY = Policy(
    full_hours=168, backup_hours=24, drill_hours=24, offsite_drill_hours=168, keep_days=14
)
WELL = Archiver("000000010000000000000009", archived=NOW - 12, since=NOW - 90_000)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    return tmp_path


def keep(
    folder: Path,
    task: str,
    *,
    hours_ago: float,
    is_well: bool = True,
    last_success: float | None = None,
) -> None:
    ended = NOW - hours_ago * HOUR
    success = ended if last_success is None else last_success
    records.write(
        Record(task, ended, 1.0, is_well, f"{task} X" if is_well else "no room", success), folder
    )


def row(name: str, current: Snapshot) -> Row:
    return next(row for row in report.make_rows(POLICY, current, NOW) if row.name == name)


def snapshot(
    archiver: Archiver = WELL,
    gap: str = "",
    free: float = 0.5,
    label: str = "X",
    newest: float | None = None,
    **faults: str,
) -> Snapshot:
    archive = ArchiveState(label, archiver.archived if newest is None else newest, gap)
    return Snapshot(NOW, archiver, archive, free, faults)


@pytest.mark.parametrize(
    ("full", "incremental", "is_well"),
    [(100, 23, True), (100, 35, True), (100, 37, False), (251, 255, True), (253, 255, False)],
)
def test_a_backup_is_too_old_after_one_and_a_half_intervals(
    folder: Path, full: float, incremental: float, is_well: bool
) -> None:
    keep(folder, "full", hours_ago=full)
    keep(
        folder,
        "incremental",
        hours_ago=min(incremental, full - 240) if incremental > 200 else incremental,
    )
    assert row("last backup", snapshot()).is_well == is_well


def test_a_failed_backup_is_not_well_however_recent_the_last_good_one(folder: Path) -> None:
    keep(folder, "full", hours_ago=2)
    keep(folder, "incremental", hours_ago=0.1, is_well=False, last_success=NOW - HOUR)
    shown = row("last backup", snapshot())
    assert not shown.is_well
    assert "incremental failed 6 min ago: no room" in shown.text


def test_a_new_stack_has_an_hour_for_its_first_backup() -> None:
    assert row("last backup", snapshot(Archiver(since=NOW - 60))).is_well
    assert not row("last backup", snapshot(Archiver(since=NOW - 2 * HOUR))).is_well
    assert not row("last backup", snapshot(Archiver())).is_well


def test_a_repository_that_cannot_be_read_is_not_well(folder: Path) -> None:
    keep(folder, "full", hours_ago=1)
    assert row("last backup", snapshot(repository="no key")) == Row("last backup", False, "no key")


@pytest.mark.parametrize(
    ("archiver", "is_well", "text"),
    [
        (WELL, True, "12 s ago"),
        (Archiver("A", archived=NOW - 119, since=1), True, "119 s ago"),
        (Archiver("A", archived=NOW - 121, since=1), False, "121 s ago"),
        (
            Archiver("A", archived=NOW - 40, failed=NOW - 5, since=1, waiting=2),
            False,
            "archiving has failed for 40 s",
        ),
        (Archiver("", since=NOW - 300), False, "no segment 300 s ago"),
    ],
)
def test_the_archive_is_well_while_its_newest_segment_is_young(
    archiver: Archiver, is_well: bool, text: str
) -> None:
    shown = row("archive", snapshot(archiver))
    assert shown.is_well == is_well
    assert text in shown.text


def test_segments_that_are_dropped_are_not_taken_for_archived() -> None:
    """Postgres reports dropped segments as archived, the last one four seconds ago."""
    shown = row("archive", snapshot(Archiver("A", archived=NOW - 4, since=1), newest=NOW - 130))
    assert not shown.is_well
    assert "130 s ago" in shown.text


def test_a_repository_without_a_backup_is_not_well_whatever_the_records_say(folder: Path) -> None:
    keep(folder, "full", hours_ago=1)
    assert row("last backup", snapshot()).is_well
    assert not row("last backup", snapshot(label="")).is_well


def test_a_task_that_was_cut_off_is_not_well(folder: Path) -> None:
    keep(folder, "full", hours_ago=2)
    begun = records.read("full", folder)
    records.write(replace(begun, facts={records.BEGUN: NOW - 60}), folder)
    assert "it was cut off" in row("last backup", snapshot()).text
    with records.hold_lock("full", folder):
        assert row("last backup", snapshot()).is_well, "the row is not ok while a backup runs"


def test_a_gap_and_a_silent_server_are_not_well() -> None:
    assert "2 segments" in row("archive", snapshot(gap="2 segments after the backup X")).text
    assert not row("archive", snapshot(gap="2 segments after the backup X")).is_well
    assert row("archive", Snapshot(NOW, faults={"archiver": "Postgres: no answer"})) == Row(
        "archive", False, "Postgres: no answer"
    )


@pytest.mark.parametrize(("free", "is_well"), [(0.5, True), (0.15, True), (0.149, False)])
def test_a_full_volume_is_not_well(free: float, is_well: bool) -> None:
    assert row("disk backups", snapshot(free=free)).is_well == is_well
