"""Segments are numbered in WAL order on every timeline, and a gap is detected."""

import pytest

from backup import archive
from backup.archive import NAME, Segment


def segments(*names: str) -> list[Segment]:
    return [Segment(name, "0" * 40, name, 0.0) for name in names]


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


@pytest.mark.parametrize("number", [0, 1, 255, 256, 65_535, 2**32])
def test_the_number_of_a_segment_is_its_position_in_the_stream(number: int) -> None:
    assert archive.segment_number(name(number, timeline=7)) == number


def test_consecutive_segments_have_no_gap() -> None:
    assert archive.find_gaps(segments(*map(name, range(250, 260))), name(250)) == []


def test_segments_before_the_backup_are_not_missed() -> None:
    assert archive.find_gaps(segments(name(3), name(9), name(10)), name(9)) == []


def test_missing_segments_are_named_by_their_ends() -> None:
    archived = segments(*map(name, [9, 10, 13, 14, 16]))
    assert archive.find_gaps(archived, name(9)) == [(11, 12), (15, 15)]
    assert archive.find_gaps(archived, name(8))[0] == (8, 8), "a missing first segment is a gap too"


def test_a_new_timeline_goes_on_where_the_old_one_ended() -> None:
    archived = segments(name(9), name(10), name(10, timeline=2), name(11, timeline=2))
    assert archive.find_gaps(archived, name(9)) == []


@pytest.mark.parametrize(
    ("file", "is_segment"),
    [
        ("000000010000000000000002-" + "a" * 40 + ".zst", True),
        ("000000010000000000000002-" + "a" * 40, True),
        ("00000002.history", False),
        ("000000010000000000000002.00000028.backup", False),
        ("000000010000000000000002.partial-" + "a" * 40 + ".zst", False),
    ],
)
def test_only_whole_segments_count(file: str, is_segment: bool) -> None:
    assert bool(NAME.fullmatch(file)) == is_segment


def test_a_gap_on_the_live_timeline_is_not_filled_by_a_replaced_one() -> None:
    old = [Segment(name(number), "0" * 40, "", float(number)) for number in range(9, 30)]
    new = [Segment(name(number, 2), "0" * 40, "", 100.0 + number) for number in (12, 13, 16)]
    assert archive.find_gaps(old + new, name(9)) == [(14, 15)]
