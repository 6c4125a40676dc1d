"""The segments that recovery reads on its way to a timeline, where one is missing, and which timeline served when."""

from datetime import UTC, datetime

import pytest

from backup import archive as archives
from backup import pgbackrest
from backup.archive import SEGMENTS_PER_LOG, Segment
from backup.pgbackrest import OFFSITE, Backup
from backup.restore import timelines
from backup.restore.choice import Repository
from backup.restore.timelines import SEGMENT_BYTES, Archive, Timeline, parse_lsn, segment_name

# Timeline 2 left 1 within segment 5, and 3 left 2 within segment 7.
ONE = Timeline(1, ((1, 0),))
TWO = Timeline(2, ((1, 0), (2, 5 * SEGMENT_BYTES + 100)))
THREE = Timeline(3, ((1, 0), (2, 5 * SEGMENT_BYTES + 100), (3, 7 * SEGMENT_BYTES + 100)))


def archive(*held: tuple[int, int]) -> Archive:
    """An archive of (timeline, number), archived one second after the other."""
    segments = [
        Segment(segment_name(timeline, number), "0" * 40, "", float(second))
        for second, (timeline, number) in enumerate(held)
    ]
    return Archive({one.name: one for one in segments}, {1: ONE, 2: TWO, 3: THREE})


def chain(found: Archive, timeline: Timeline, first: int) -> tuple[list[tuple[int, int]], str]:
    links = found.find_chain(timeline, first)
    return [(int(one.name[:8], 16), one.number) for one in links.segments], links.missing


def test_a_place_is_read_as_postgres_writes_it() -> None:
    assert parse_lsn("1/8000028") == 2**32 + 0x8000028
    assert segment_name(3, 258) == "000000030000000100000002"


def test_the_way_to_a_timeline_takes_each_segment_of_the_newest_that_has_it() -> None:
    whole = archive((1, 4), (1, 5), (1, 6), (2, 5), (2, 6), (2, 7), (3, 7), (3, 8))
    assert chain(whole, THREE, 4) == ([(1, 4), (2, 5), (2, 6), (3, 7), (3, 8)], "")
    assert chain(whole, ONE, 4) == ([(1, 4), (1, 5), (1, 6)], "")


def test_a_timeline_that_has_archived_nothing_yet_is_reached_by_the_one_before() -> None:
    assert chain(archive((1, 4), (1, 5), (1, 6)), TWO, 4) == ([(1, 4), (1, 5)], "")


def test_a_missing_segment_ends_the_way_and_is_named() -> None:
    assert chain(archive((1, 4), (1, 6)), ONE, 4) == ([(1, 4)], segment_name(1, 5))
    assert chain(archive((1, 5)), ONE, 4) == ([], segment_name(1, 4))
    # The part of the timeline before is there, and does not help: what follows needs the newer one.
    assert chain(archive((1, 4), (1, 5), (2, 6)), TWO, 4) == ([(1, 4), (1, 5)], segment_name(2, 5))


def test_a_backup_lies_on_the_way_up_to_where_its_timeline_was_left() -> None:
    assert THREE.exit_lsn(1) == 5 * SEGMENT_BYTES + 100
    assert THREE.exit_lsn(3) is None
    assert TWO.exit_lsn(3) == 0


def test_the_timeline_that_serves_is_the_one_that_archives_whatever_its_number() -> None:
    """Timeline 2 served for a moment, did not work, and was taken back."""
    found = archive((1, 4), (1, 5), (2, 5), (1, 6), (1, 7))
    assert found.newest == ONE
    assert found.find_timeline_at(3.5) == ONE
    assert found.find_timeline_at(2.0) == TWO
    assert found.find_timeline_at(99) == ONE
    assert (found.find_end(TWO), found.find_end(ONE)) == (2.0, None)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An archive of logs 0 to 9 of timeline 1 and 4 to 6 of timeline 2, and of an older database; what is listed."""
    found: list[str] = []
    logs = {1: range(10), 2: range(4, 7)}
    folders = [f"{timeline:08X}{log:08X}" for timeline, numbers in logs.items() for log in numbers]

    def folder(path: str, repository: int) -> dict[str, dict[str, object]]:
        assert repository == OFFSITE
        if not path:
            return {"15-1": {}, "17-2": {}, "archive.info": {}}
        if path == "17-2":
            return {name: {} for name in [*folders, "00000002.history"]}
        found.append(path.removeprefix("17-2/"))
        return {
            f"{path[-16:]}{number:08X}-{'0' * 40}.zst": {"time": 7}
            for number in range(SEGMENTS_PER_LOG)
        }

    monkeypatch.setattr(archives, "list_folder", folder)
    monkeypatch.setattr(
        timelines, "_read_history", lambda *_: "1\t4/100\tno recovery target specified\n"
    )
    return found


def test_what_lies_before_the_backup_is_not_listed_but_for_the_newest_of_each_timeline(
    listed: list[str],
) -> None:
    found = timelines.read("2", OFFSITE, segment_name(1, 8 * SEGMENTS_PER_LOG + 3))
    assert listed == ["0000000200000006", "0000000100000009", "0000000100000008"]
    assert set(found.timelines) == {1, 2}
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

    made = [backup(1, 1, 2), backup(2, 1, 8), backup(3, 2, 6)]
    monkeypatch.setattr(pgbackrest, "list_backups", lambda _: made)
    held = Repository(OFFSITE, datetime(2026, 11, 21, 2, 30, tzinfo=UTC))
    assert "0000000100000007" not in listed
    one = held.archive.timelines[1]
    assert len(held.find_chain(made[1], one).segments) == 2 * SEGMENTS_PER_LOG
    assert "0000000100000007" not in listed
    assert len(held.find_chain(made[0], one).segments) == 8 * SEGMENTS_PER_LOG
