"""Tests the off-host drill: when it is due, its row in status.sh, the times it may choose."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup import archive, drill, pgbackrest, postgres, records, report, tasks, witness
from backup.archive import Segment
from backup.failure import Failure
from backup.offsite import Offsite
from backup.pgbackrest import LOCAL, OFFSITE, Backup
from backup.policy import Policy
from backup.records import Record
from backup.report import Row
from backup.restore import timelines, verification
from backup.restore.timelines import SEGMENT_BYTES, Archive, Timeline, segment_name
from backup.restore.verification import Transaction
from backup.snapshot import ArchiveState, Snapshot

NOW = 1_700_000_000.0
HOUR = 3600.0
POLICY = Policy(168, 24, 24, 168, 14, Offsite("sftp", "h", 22, "u", "/slipway"))
Contents = dict[int, list[tuple[int, int, float]]]
FIRST, SECOND = Timeline(1, ((1, 0),)), Timeline(2, ((1, 0), (2, 5 * SEGMENT_BYTES + 100)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records.read, "__defaults__", (tmp_path,))
    monkeypatch.setattr(records.write, "__defaults__", (tmp_path,))
    return tmp_path


def keep(task: str, hours_ago: float, *, is_well: bool = True, success: float = 0) -> None:
    ended = NOW - hours_ago * HOUR
    records.write(
        Record(
            task,
            ended,
            1,
            is_well,
            "" if is_well else "a file differs",
            ended if is_well else success,
        )
    )


def keep_backups(*, here: float = 1, there: float = 1, is_shipping: bool = True) -> None:
    """Keep backups that are some hours old, and the state of shipping."""
    keep("full", here)
    keep("offsite-full", there)
    facts = {"archived": NOW - 9, "waiting": 0, "after_gap": ""}
    records.write(Record("shipping", NOW, 0, is_shipping, "no answer", NOW, facts))


def row() -> Row:
    rows = report.make_rows(POLICY, Snapshot(NOW), NOW)
    return next(row for row in rows if row.name == "off-host")


def is_due(policy: Policy = POLICY) -> bool:
    return tasks.OFFSITE_DRILL.is_due(policy, ArchiveState(), NOW)


@pytest.mark.parametrize("is_shipping", [True, False])
@pytest.mark.parametrize(
    ("hours_ago", "drilled", "is_well", "text"),
    [
        (200, True, True, "drill 8 d ago"),
        (251, True, True, "drill 10 d ago"),
        (253, True, False, "drill 11 d ago"),
        (3, False, False, "drill failed 3 h ago: a file differs; the last one passed 6 h ago"),
    ],
)
def test_a_drill_off_the_host_that_failed_or_is_late_is_not_well(
    hours_ago: float, drilled: bool, is_well: bool, text: str, is_shipping: bool
) -> None:
    """A shipping failure in its first minute keeps the row ok; it must not hide a failed drill."""
    keep_backups(is_shipping=is_shipping)
    keep("offsite-drill", hours_ago, is_well=drilled, success=NOW - 6 * HOUR)
    assert row().is_well == is_well
    assert text in row().text


@pytest.mark.parametrize(
    ("here", "there", "is_well", "first_is_due"),
    [
        (0.1, 0.1, True, False),
        (0.9, 0.9, True, True),
        (1.1, 1.1, False, True),
        (0.1, 30, True, False),
    ],
)
def test_a_drill_off_the_host_that_never_ran_is_not_well_after_an_hour_with_backups(
    here: float, there: float, is_well: bool, first_is_due: bool
) -> None:
    """The off-host backups may come from a lost host and be older than this installation."""
    keep_backups(here=here, there=there)
    keep("offsite-incremental", 1)
    assert (row().is_well, is_due()) == (is_well, first_is_due)
    assert "drill none yet" in row().text


def test_the_first_drill_off_the_host_has_an_hour_from_its_begin(folder: Path) -> None:
    keep_backups(here=100, there=100)
    keep("offsite-incremental", 1)
    assert not row().is_well
    records.write(Record("offsite-drill", facts={records.BEGUN: NOW - 60}))
    with records.hold_lock("offsite-drill", folder):
        assert row().is_well


def test_a_drill_off_the_host_is_due_while_its_repository_is_whole() -> None:
    keep("offsite-drill", 169)
    assert not is_due(), "no backup yet"
    keep_backups()
    assert is_due()
    assert not is_due(Policy(168, 24, 24, 168, 14)), "no repository off the host"
    assert not is_due(Policy(168, 24, 24, 170, 14, POLICY.offsite))
    shipping = {"archived": NOW - 9, "waiting": 0, "after_gap": ""}
    for is_well, facts in ((False, {}), (True, {"waiting": 2}), (True, {"after_gap": "0" * 24})):
        records.write(Record("shipping", NOW, 0, is_well, "", NOW, shipping | facts))
        assert not is_due(), facts


def test_a_drill_off_the_host_that_failed_reads_the_backup_again_only_after_hours() -> None:
    keep_backups(there=3)
    keep("offsite-drill", 1, is_well=False)
    assert not is_due()
    keep("offsite-incremental", 0.5)
    assert is_due(), "there is a newer backup"
    keep("offsite-drill", 0.4, is_well=False)
    assert not is_due()
    keep("offsite-drill", 6.1, is_well=False)
    keep_backups(there=7)
    records.write(Record("offsite-incremental"))
    assert is_due()
    records.write(Record("offsite-drill", NOW - 9 * HOUR, facts={records.BEGUN: NOW - 0.1 * HOUR}))
    assert is_due(), "the last drill was interrupted"


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The segments of each repository as (timeline, number, archived at), after a backup."""
    contents: Contents = {}

    def backups(repository: int) -> list[Backup]:
        ended = datetime.fromtimestamp(100, UTC)
        first = segment_name(1, 3)
        return [
            Backup(
                "A",
                "full",
                repository,
                ended,
                ended,
                first,
                first,
                "0/3000100",
                1,
                1,
                "1",
                has_error=False,
            )
        ]

    def read(_: str, repository: int, __: str) -> Archive:
        segments = [
            Segment(segment_name(timeline, number), "", "", at)
            for timeline, number, at in contents[repository]
        ]
        numbers = {timeline for timeline, _, _ in contents[repository]}
        return Archive(
            {segment.name: segment for segment in segments},
            {
                timeline.number: timeline
                for timeline in (FIRST, SECOND)
                if timeline.number in numbers
            },
        )

    def last(segments: list[Segment], repository: int) -> Transaction:
        assert repository == OFFSITE
        return Transaction("0/0", datetime.fromtimestamp(segments[-1].archived - 1, UTC))

    monkeypatch.setattr(pgbackrest, "list_backups", backups)
    monkeypatch.setattr(timelines, "read", read)
    monkeypatch.setattr(verification, "find_last", last)
    monkeypatch.setattr(witness, "write_row", lambda: None)
    monkeypatch.setattr(archive, "archive_now", lambda _: None)
    monkeypatch.setattr(drill, "SHIPPED_SECONDS", 0.0)
    monkeypatch.setattr(drill, "AFTER_SECONDS", 0.0)
    return contents


def moments(monkeypatch: pytest.MonkeyPatch, live: int) -> tuple[float, float]:
    """Return the earliest and the latest time that the off-host drill may choose."""
    monkeypatch.setattr(postgres, "ask", lambda _: [[segment_name(live, 9)]])
    times = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("random.random", lambda share=share: share)
        times.append(drill._choose_moment(OFFSITE).timestamp())
    return times[0], times[1]


def test_no_time_is_chosen_that_is_not_off_the_host_yet(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents[OFFSITE] = [(1, 3, 90.0), (1, 4, 130.0), (1, 5, 160.0)]
    contents[LOCAL] = [*contents[OFFSITE], (1, 6, 190.0), (1, 7, 220.0)]
    assert moments(monkeypatch, 1) == (101, 159)


def test_no_time_is_chosen_of_a_database_that_was_replaced(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later of the two archive times counts, because the off-host clock may be behind."""
    contents[OFFSITE] = [(1, 3, 90.0), (1, 4, 130.0), (2, 5, 160.0), (2, 6, 190.0)]
    contents[LOCAL] = [(1, 3, 91.0), (1, 4, 150.0), (2, 5, 160.0), (2, 6, 190.0)]
    assert moments(monkeypatch, 2) == (151, 189)
    contents[LOCAL] = [(2, 6, 190.0)]
    assert moments(monkeypatch, 2) == (131, 189)


def test_a_repository_without_the_live_timeline_is_not_compared(
    contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents[OFFSITE] = [(1, 3, 90.0), (1, 4, 130.0)]
    contents[LOCAL] = [*contents[OFFSITE], (2, 5, 160.0)]
    with pytest.raises(
        Failure, match="off the host has no segment yet of timeline 2, which is live"
    ):
        moments(monkeypatch, 2)


def test_it_waits_until_the_newest_segment_is_off_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    name = segment_name(2, 9)
    monkeypatch.setattr(postgres, "ask", lambda _: [[name]])
    shipped = iter([segment_name(1, 9), segment_name(2, 8), name])
    monkeypatch.setattr(
        records, "read", lambda task: Record(task, facts={"segment": next(shipped)})
    )
    monkeypatch.setattr(drill, "POLL_SECONDS", 0.0)
    drill._wait_for_shipping()
    assert next(shipped, None) is None
