"""Tests the order of shipping, gaps, and their rows in status.sh."""

import json
from pathlib import Path

import pytest

from backup import archive, pgbackrest, records, report, schedule, shipping, tasks
from backup.failure import Failure
from backup.offsite import Offsite
from backup.policy import Policy
from backup.programs import Result
from backup.records import Record
from backup.shipping import Position
from backup.snapshot import ArchiveState, Snapshot

NOW = 1_700_000_000.0
HOUR = 3600.0
PLACE = Offsite("sftp", "h", 22, "u", "/slipway")
POLICY = Policy(168, 24, 24, 168, 14, PLACE)
SUM = "0" * 40


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    monkeypatch.setattr(records.write, "__defaults__", (tmp_path,))
    return tmp_path


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The folders of the local archive, with the names of segments."""
    folders: dict[str, list[str]] = {}

    def list_folder(path: str, repository: int = pgbackrest.LOCAL) -> dict[str, dict[str, object]]:
        assert repository == pgbackrest.LOCAL
        return {
            f"{name}-{SUM}.zst": {"type": "file", "time": 7}
            for name in folders[path.rpartition("/")[2]]
        }

    monkeypatch.setattr(archive, "list_folder", list_folder)
    return folders


def list_waiting(folders: dict[str, list[str]], segment: str) -> list[str]:
    entries: dict[str, dict[str, object]] = {name: {} for name in [*folders, "00000002.history"]}
    position = Position("17-1", {segment[:8]: segment})
    return [waiting.name for waiting in shipping.list_waiting(position, entries)]


def test_the_waiting_segments_are_in_the_order_of_the_stream(folders: dict[str, list[str]]) -> None:
    folders["0000000100000000"] = [
        "0000000100000000000000FF",
        "0000000100000000000000FD",
        "0000000100000000000000FE",
    ]
    folders["0000000100000001"] = ["000000010000000100000000"]
    folders["0000000200000001"] = ["000000020000000100000000"]
    expected = ["0000000100000000000000FE", "0000000100000000000000FF"]
    expected += ["000000010000000100000000", "000000020000000100000000"]
    assert list_waiting(folders, "0000000100000000000000FD") == expected
    assert list_waiting(folders, "000000020000000100000000") == []


def test_folders_before_the_position_are_not_listed(folders: dict[str, list[str]]) -> None:
    folders["0000000100000001"] = ["000000010000000100000003"]
    entries: dict[str, dict[str, object]] = {"0000000100000000": {}, "0000000100000001": {}}
    position = Position("17-1", {"00000001": "000000010000000100000002"})
    assert len(shipping.list_waiting(position, entries)) == 1


def test_shipping_follows_the_live_timeline_after_an_undone_restore(
    folders: dict[str, list[str]],
) -> None:
    folders["0000000100000000"] = ["0000000100000000000000FD", "0000000100000000000000FE"]
    folders["0000000200000000"] = ["000000020000000000000005"]
    entries: dict[str, dict[str, object]] = {folder: {} for folder in folders}
    segments = {"00000001": "0000000100000000000000FD", "00000002": "000000020000000000000005"}
    waiting = shipping.list_waiting(Position("17-1", segments), entries)
    assert [segment.name for segment in waiting] == ["0000000100000000000000FE"]


def test_the_name_before_a_name() -> None:
    assert shipping.name_preceding_segment("000000030000000100000000") == "0000000300000000000000FF"
    assert shipping.name_preceding_segment("000000010000000000000000") == "000000010000000000000000"


def arrive(last: str, name: str) -> None:
    segment = archive.parse_segment(f"x/{name}-{SUM}.zst", {"time": 7})
    assert segment
    shipping.record_shipped(last, segment, 0)


def test_a_segment_that_does_not_follow_leaves_a_gap_until_the_next_backup() -> None:
    records.write(
        Record("offsite-full", NOW, 1, True, "", NOW, {"wal_start": "000000010000000000000002"})
    )
    arrive("000000010000000000000004", "000000010000000000000005")
    assert not schedule.has_offsite_gap()
    arrive("000000010000000000000005", "000000010000000000000007")
    arrive("000000010000000000000007", "000000010000000000000008")
    assert schedule.has_offsite_gap()
    assert not row(NOW).is_well
    assert "missing: segments before 000000010000000000000007" in row(NOW).text
    records.write(
        Record(
            "offsite-incremental", NOW, 1, True, "", NOW, {"wal_start": "000000010000000000000009"}
        )
    )
    assert not schedule.has_offsite_gap()


def test_another_timeline_is_no_gap() -> None:
    arrive("00000001000000000000000A", "000000020000000000000007")
    assert not schedule.has_offsite_gap()


def row(now: float, policy: Policy = POLICY) -> report.Row:
    rows = report.make_rows(policy, Snapshot(now), now)
    return next(row for row in rows if row.name == "off-host")


def keep(
    *,
    lag: float,
    is_well: bool = True,
    full: float = 1,
    incremental: float = 1,
    is_taken: bool = True,
) -> None:
    facts = {"segment": "0" * 24, "archived": NOW - lag, "waiting": 0, "after_gap": ""}
    records.write(Record("shipping", NOW, 0, is_well, "no room", NOW, facts))
    records.write(Record("offsite-full", NOW - full * HOUR, 1, True, "full X", NOW - full * HOUR))
    last = NOW - incremental * HOUR
    records.write(
        Record("offsite-incremental", last, 1, is_taken, "no answer", last if is_taken else 0)
    )


def test_no_repository_off_the_host_is_well_and_shown() -> None:
    shown = row(NOW, Policy(168, 24, 24, 168, 2))
    assert shown.is_well
    assert "not configured" in shown.text


def test_configured_and_never_shipped_is_not_well() -> None:
    assert not row(NOW).is_well
    assert "not begun" in row(NOW).text


@pytest.mark.parametrize(("lag", "is_well"), [(35, True), (119, True), (121, False)])
@pytest.mark.parametrize("is_shipping", [True, False])
def test_the_copy_off_the_host_is_well_while_it_is_recent(
    lag: float, is_well: bool, is_shipping: bool
) -> None:
    """status.sh shows a failure at once, but the row stays ok until the lag exceeds two minutes."""
    keep(lag=lag, is_well=is_shipping)
    assert row(NOW).is_well == is_well
    assert ("shipping fails: no room" in row(NOW).text) != is_shipping


@pytest.mark.parametrize(
    ("full", "incremental", "is_well"), [(250, 35, True), (250, 37, False), (253, 1, False)]
)
def test_a_backup_off_the_host_is_too_old_after_one_and_a_half_intervals(
    full: float, incremental: float, is_well: bool
) -> None:
    keep(lag=9, full=full, incremental=incremental)
    assert row(NOW).is_well == is_well


def test_a_backup_off_the_host_that_failed_is_not_well() -> None:
    keep(lag=9, full=2, incremental=1, is_taken=False)
    assert "offsite-incremental failed 60 min ago: no answer" in row(NOW).text
    assert not row(NOW).is_well


def due() -> list[str]:
    return [
        task.name
        for task in tasks.TASKS
        if task.name.startswith("offsite") and task.is_due(POLICY, ArchiveState(), NOW)
    ]


def test_backups_off_the_host_wait_for_shipping_and_need_a_place() -> None:
    assert due() == []
    records.write(Record("shipping", NOW, 0, True, "", NOW, {"waiting": 3}))
    assert due() == []
    records.write(Record("shipping", NOW, 0, True, "", NOW, {"waiting": 0}))
    assert due() == ["offsite-full"]
    assert not tasks.OFFSITE_FULL.is_due(Policy(168, 24, 24, 168, 2), ArchiveState(), NOW)
    keep(lag=9, full=25, incremental=25)
    assert due() == ["offsite-incremental"]
    keep(lag=9, full=25, incremental=1)
    assert due() == []


def test_records_follow_the_place() -> None:
    entry = {"type": "full", "label": "A", "timestamp": {"stop": 5}, "archive": {"start": "B"}}
    shipping.adopt_backups([entry])
    assert (
        records.read("offsite-full").last_success,
        records.read("offsite-full").facts["wal_start"],
    ) == (5, "B")
    records.write(Record("offsite-drill", NOW, 1, True, "", NOW))
    shipping.adopt_backups([entry])
    assert records.read("offsite-drill").ended
    shipping.adopt_backups([])
    assert not records.read("offsite-full").last_success
    assert not records.read("offsite-drill").ended, "the drill tested another repository"


@pytest.mark.parametrize(("code", "is_refused"), [(0, True), (1, False), (2, False), (99, True)])
def test_an_empty_volume_is_begun_only_where_the_place_is_unused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, is_refused: bool
) -> None:
    monkeypatch.setattr(shipping, "DATA", tmp_path)
    repository = {"status": {"code": code, "message": "[E] reason:\nat length"}}
    answer = json.dumps(
        [{"name": "main", "status": {"code": code, "message": "other"}, "repo": [repository]}]
    )
    monkeypatch.setattr(pgbackrest, "call", lambda *_, **__: Result(0, answer, "", 0))
    if is_refused:
        with pytest.raises(
            Failure, match="has backups of one" if code == 0 else r"cannot be asked: \[E\] reason$"
        ):
            shipping.refuse_lost_database()
        (tmp_path / "17").mkdir()
        (tmp_path / "17/PG_VERSION").touch()
    shipping.refuse_lost_database()


def test_a_place_of_another_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def stanza(repository: int) -> dict[str, object]:
        ours = {"system-id": 1, "version": "17"}
        return {
            "db": [ours if repository == pgbackrest.LOCAL else {**ours, "system-id": 2}],
            "backup": [],
        }

    monkeypatch.setattr(pgbackrest, "read_stanza", stanza)
    with pytest.raises(Failure, match="belongs to another database, of system 2"):
        shipping.find_position()
