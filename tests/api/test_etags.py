"""Each state of an item has an ETag, and conditions are parsed according to RFC 9110."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.items.etags import check_condition, etag, is_listed, states

WRITTEN = datetime(2026, 11, 21, 5, 0, 0, 123456, tzinfo=UTC)
TAG = etag({"updated_at": WRITTEN})


@given(st.integers(0, 7 * 10**16))
def test_a_tag_leads_back_to_its_state(microseconds: int) -> None:
    written = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert states(etag({"updated_at": written})) == [written]


def test_states_a_microsecond_apart_have_different_tags() -> None:
    assert etag({"updated_at": WRITTEN + timedelta(microseconds=1)}) != TAG


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, None),
        ("*", None),
        (TAG, [WRITTEN]),
        (f'"other", {TAG}', [WRITTEN]),
        (f', ,{TAG} ,"a,b",', [WRITTEN]),
        (f"W/{TAG}", []),
        ('"other"', []),
        ('""', []),
        (f'"{"f" * 15}"', []),
        ('"*"', []),
        ('"a,*,b"', []),
    ],
)
def test_if_match_accepts_the_states_of_strong_tags(
    condition: str | None, expected: list[datetime] | None
) -> None:
    assert check_condition(condition) == condition
    assert states(condition) == expected


@pytest.mark.parametrize(
    "condition", ["", TAG.strip('"'), "0", '"a', f"{TAG} {TAG}", f"*, {TAG}", '"a b"', 'w/"a"']
)
def test_what_is_no_condition_is_refused_and_not_ignored(condition: str) -> None:
    with pytest.raises(ValueError, match="in double quotes"):
        check_condition(condition)


@pytest.mark.parametrize("condition", [TAG, f"W/{TAG}", "*", f'"a,b",W/"other" ,{TAG}'])
def test_if_none_match_finds_the_tag_in_any_form(condition: str) -> None:
    assert is_listed(TAG, condition)


@pytest.mark.parametrize(
    "condition", [None, "", '"other"', TAG.strip('"'), '"*"', f'"{TAG.strip(chr(34))},"']
)
def test_if_none_match_does_not_find_what_is_not_there(condition: str | None) -> None:
    assert not is_listed(TAG, condition)
