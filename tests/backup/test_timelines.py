"""Tests which segments recovery to a timeline reads, and when each timeline was live."""

from datetime import UTC, datetime

import pytest

from backup import archive as archives
from backup import pgbackrest
from backup.archive import SEGMENTS_PER_LOG, Segment
from backup.pgbackrest import OFFSITE, Backup
from backup.restore import timelines
from backup.restore.choice import Repository
from backup.restore.timelines import SEGMENT_BYTES, Archive, Timeline, parse_lsn, segment_name

# Timeline 2 branches from 1 within segment 5, and timeline 3 from 2 within segment 7.
FIRST = Timeline(1, ((1, 0),))
SECOND = Timeline(2, ((1, 0), (2, 5 * SEGMENT_BYTES + 100)))
THIRD = Timeline(3, ((1, 0), (2, 5 * SEGMENT_BYTES + 100), (3, 7 * SEGMENT_BYTES + 100)))


def archive(*contents: tuple[int, int]) -> Archive:
    """An archive of segments (timeline, number), archived a second apart."""
    segments = [
        Segment(segment_name(timeline, number), "0" * 40, "", float(second))
        for second, (timeline, number) in enumerate(contents)
    ]
    by_name = {segment.name: segment for segment in segments}
    return Archive(by_name, {1: FIRST, 2: SECOND, 3: THIRD})


def chain(whole: Archive, timeline: Timeline, first: int) -> tuple[list[tuple[int, int]], str]:
    links = whole.find_chain(timeline, first)
    return [(int(link.name[:8], 16), link.number) for link in links.segments], links.missing


def test_an_lsn_is_read_as_postgres_writes_it() -> None:
    assert parse_lsn("1/8000028") == 2**32 + 0x8000028
    assert segment_name(3, 258) == "000000030000000100000002"


def test_the_way_to_a_timeline_takes_each_segment_of_the_newest_that_has_it() -> None:
    whole = archive((1, 4), (1, 5), (1, 6), (2, 5), (2, 6), (2, 7), (3, 7), (3, 8))
    assert chain(whole, THIRD, 4) == ([(1, 4), (2, 5), (2, 6), (3, 7), (3, 8)], "")
    assert chain(whole, FIRST, 4) == ([(1, 4), (1, 5), (1, 6)], "")


def test_a_timeline_that_has_archived_nothing_yet_is_reached_by_the_one_before() -> None:
    assert chain(archive((1, 4), (1, 5), (1, 6)), SECOND, 4) == ([(1, 4), (1, 5)], "")


def test_a_missing_segment_ends_the_way_and_is_named() -> None:
    assert chain(archive((1, 4), (1, 6)), FIRST, 4) == ([(1, 4)], segment_name(1, 5))
    assert chain(archive((1, 5)), FIRST, 4) == ([], segment_name(1, 4))
    # The ancestor's part of segment 5 is not enough: recovery needs timeline 2's segment 5.
    assert chain(archive((1, 4), (1, 5), (2, 6)), SECOND, 4) == (
        [(1, 4), (1, 5)],
        segment_name(2, 5),
    )


def test_recovery_leaves_an_ancestor_where_the_next_timeline_begins() -> None:
    assert THIRD.exit_lsn(1) == 5 * SEGMENT_BYTES + 100
    assert THIRD.exit_lsn(3) is None
    assert SECOND.exit_lsn(3) == 0


def test_the_live_timeline_is_the_one_that_archives_whatever_its_number() -> None:
    """Timeline 2 was live for a moment, failed, and was undone."""
    whole = archive((1, 4), (1, 5), (2, 5), (1, 6), (1, 7))
    assert whole.newest == FIRST
    assert whole.find_timeline_at(3.5) == FIRST
    assert whole.find_timeline_at(2.0) == SECOND
    assert whole.find_timeline_at(99) == FIRST
    assert (whole.find_end(SECOND), whole.find_end(FIRST)) == (2.0, None)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The listed folders of an archive: logs 0 to 9 of timeline 1, and 4 to 6 of timeline 2."""
    paths: list[str] = []
    logs = {1: range(10), 2: range(4, 7)}
    folders = [f"{timeline:08X}{log:08X}" for timeline, numbers in logs.items() for log in numbers]

    def folder(path: str, repository: int) -> dict[str, dict[str, object]]:
        assert repository == OFFSITE
        if not path:
            return {"15-1": {}, "17-2": {}, "archive.info": {}}
        if path == "17-2":
            return {name: {} for name in [*folders, "00000002.history"]}
        paths.append(path.removeprefix("17-2/"))
        return {
            f"{path[-16:]}{number:08X}-{'0' * 40}.zst": {"time": 7}
            for number in range(SEGMENTS_PER_LOG)
        }

    monkeypatch.setattr(archives, "list_folder", folder)
    monkeypatch.setattr(
        timelines, "_read_history", lambda *_: "1\t4/100\tno recovery target specified\n"
    )
    return paths


def test_of_the_segments_before_the_backup_only_the_newest_of_each_timeline_are_listed(
    listed: list[str],
) -> None:
    whole = timelines.read("2", OFFSITE, segment_name(1, 8 * SEGMENTS_PER_LOG + 3))
    assert listed == ["0000000200000006", "0000000100000009", "0000000100000008"]
    assert set(whole.timelines) == {1, 2}
    assert len(timelines.read("2", OFFSITE, segment_name(1, 0)).segments) == 13 * SEGMENTS_PER_LOG


def test_a_chain_from_an_older_backup_is_read_whole(
    listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backup(hour: int, timeline: int, log: int) -> Backup:
        ended = datetime(2026, 11, 21, hour, tzinfo=UTC)
        first = segment_name(timeline, log * SEGMENTS_PER_LOG)
        return Backup(
            "A",
            "full",
            OFFSITE,
            ended,
            ended,
            first,
            first,
            f"{log:X}/100",
            1,
            1,
            "2",
            has_error=False,
        )

    backups = [backup(1, 1, 2), backup(2, 1, 8), backup(3, 2, 6)]
    monkeypatch.setattr(pgbackrest, "list_backups", lambda _: backups)
    repository = Repository(OFFSITE, datetime(2026, 11, 21, 2, 30, tzinfo=UTC))
    assert "0000000100000007" not in listed
    timeline = repository.archive.timelines[1]
    assert len(repository.find_chain(backups[1], timeline).segments) == 2 * SEGMENTS_PER_LOG
    assert "0000000100000007" not in listed
    assert len(repository.find_chain(backups[0], timeline).segments) == 8 * SEGMENTS_PER_LOG
