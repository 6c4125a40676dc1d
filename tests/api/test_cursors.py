"""A cursor points to its row; any other text is the caller's error."""

import contextlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.requests.cursors import decode_cursor, encode_cursor
from api.requests.errors import ApiError


@given(st.uuids())
def test_a_cursor_leads_back_to_its_row(row_id: UUID) -> None:
    assert decode_cursor(encode_cursor(row_id)) == row_id


@given(st.text(max_size=64))
def test_any_other_text_is_refused_and_never_a_crash(text: str) -> None:
    with contextlib.suppress(ApiError):
        assert encode_cursor(decode_cursor(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ä",
        "AaH7yP6mebypsusdvhrjPw==",
        "AaH7yP6mebypsusdvhrjPwAA",
        "AaH7yP6mebypsusdvhrjPx",
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(ApiError):
        decode_cursor(text)
