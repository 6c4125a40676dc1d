"""Tests the layout of text: no line is wider than the terminal, and folding loses no text."""

import pytest
from stack.layout import cells, clip, fit, fold, fold_beside, fold_indented, printable

TEXTS = [
    "",
    "short",
    "words that are folded at the spaces between them and nowhere else at all",
    "a-word-that-is-longer-than-any-line-" * 4,
    "漢字仮名交じり文" * 12,
    "e\u0301" * 80,
    "mixed 漢字 and  two spaces   and three",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [20, 59, 60, 100])
def test_folded_lines_fit_and_hold_every_character(text: str, width: int) -> None:
    lines = fold(text, width, "  ")
    assert max(map(cells, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("width", [20, 60, 100])
@pytest.mark.parametrize("text", TEXTS)
def test_a_label_and_its_text_fit(text: str, width: int) -> None:
    lines = fold_beside("ok  a label of a row   ", text, width)
    assert max(map(cells, lines)) <= width
    assert "".join(lines).replace(" ", "") == "okalabelofarow" + text.replace(" ", "")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [0, 1, 2, 3, 20, 60])
def test_a_text_is_cut_to_its_columns(text: str, width: int) -> None:
    assert cells(clip(text, width)) <= width
    assert cells(fit(text, width)) == width
    assert clip(text, 1000) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", range(-2, 12))
def test_a_window_of_a_few_columns_stops_nothing(text: str, width: int) -> None:
    for lines in (fold(text, width, "      "), fold_beside("ok  label   ", text, width)):
        assert "".join(lines).replace(" ", "").endswith(text.replace(" ", ""))


def test_a_word_is_not_broken_where_a_space_is_near() -> None:
    assert fold("one two three", 8) == ["one two", "three"]
    assert fold("one two", 7) == ["one two"]
    assert fold("one two", 3) == ["one", "two"]


def test_what_continues_a_line_stands_deeper_than_it() -> None:
    assert fold_indented("first\n    one two three", 12) == ["first", "    one two", "      three"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://a.example\x1b\\link", "link"),
        ("\x1bcreset", "?creset"),
        ("bell\x07 back\x08 csi\x9b2J", "bell? back? csi?2J"),
        ("right\u202eto left", "right?to left"),
        ("tab\tnew\u2028line", "tab new line"),
        ("ü 漢字", "ü 漢字"),
    ],
)
def test_a_terminal_obeys_nothing_of_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
