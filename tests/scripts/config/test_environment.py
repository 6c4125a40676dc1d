"""`.env` is parsed as Compose parses it; an error names the line, and never the value."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack.config.environment import (
    check_keys,
    check_missing,
    decode,
    known_keys,
    parse,
    quoted,
    with_values,
)
from stack.config.keys import NEEDED
from stack.failure import Failure

from tests.scripts.config import corpus
from tests.scripts.conftest import ROOT

VALUE = "hunter2"


def values(text: str) -> dict[str, str]:
    return {line.key: line.value for line in parse(text)}


@pytest.mark.parametrize(("text", "value"), corpus.READ)
def test_a_value_is_read_as_compose_reads_it(text: str, value: str) -> None:
    assert values(f"A={text}\n") == {"A": value}


@pytest.mark.parametrize(("text", "fault"), corpus.REFUSED)
def test_a_text_that_compose_reads_in_another_way_is_refused_with_the_fix(
    text: str, fault: str
) -> None:
    with pytest.raises(Failure) as raised:
        parse(f"\n\nA={text}\n")
    assert f"A (line 3) {fault}" in raised.value.observation
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["A=b\n", "  A=b  \n", "# why\n\nA=b # which\n"])
def test_blanks_and_comments_around_a_value_are_no_part_of_it(text: str) -> None:
    assert values(text) == {"A": "b"}


def test_an_empty_list_of_compose_files_is_refused_because_compose_takes_the_folder() -> None:
    for text in ("COMPOSE_FILE=\n", "COMPOSE_FILE='' # the default\n"):
        with pytest.raises(Failure, match=r"COMPOSE_FILE \(line 1\) is empty, and Compose reads"):
            parse(text)
    assert values("# COMPOSE_FILE=\nHTTPS_PORT=\n") == {"HTTPS_PORT": ""}


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(Failure, match=r"byte order mark \(BOM\): save it as UTF-8 without BOM"):
        parse("\ufeffA=b\n")


def test_a_byte_that_is_not_utf_8_is_named_by_its_line() -> None:
    assert decode("A=b\n# café\n".encode()) == "A=b\n# café\n"
    with pytest.raises(Failure, match="line 2 has a byte that is not UTF-8"):
        decode("A=b\n# café\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"A={VALUE}\r\n", "CRLF"),
        (f"A={VALUE}\nB=1\nA={VALUE}\n", "A is set twice, in lines 1 and 3"),
        (f"A={VALUE}", "cut off"),
        (f"export A={VALUE}\n", "line 1 is not KEY=value"),
        (f"{VALUE}\n", "line 1 is not KEY=value"),
        (f"1A={VALUE}\n", "line 1 is not KEY=value"),
        (f"A ={VALUE}\n", "line 1 is not KEY=value"),
    ],
)
def test_a_fault_is_named_without_its_value(text: str, fault: str) -> None:
    with pytest.raises(Failure) as raised:
        parse(text)
    message = str(raised.value)
    assert fault in message
    assert VALUE not in message
    assert "HINT: " in message
    assert message.endswith("RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration")


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(Failure) as raised:
        parse(f"what\nA=1\r\nA={VALUE}")
    for fault in ("line 1", "CRLF", "A is set twice", "cut off"):
        assert fault in str(raised.value)


def test_an_unknown_key_is_refused_by_name_and_line() -> None:
    with pytest.raises(Failure) as raised:
        check_keys(parse(f"A=1\n\nHTTPPORT={VALUE}\n"), {"A"})
    assert "HTTPPORT (line 3)" in str(raised.value)
    assert VALUE not in str(raised.value)


@pytest.mark.parametrize("key", NEEDED)
def test_a_file_that_lacks_a_key_of_the_stack_s_identity_was_cut_off(key: str) -> None:
    text = "".join(f"{name}={VALUE}\n" for name in NEEDED if name != key)
    with pytest.raises(Failure, match=rf"^error: \.env lacks {key}: it was cut off") as raised:
        check_missing(parse(text))
    assert VALUE not in str(raised.value)
    assert str(raised.value).endswith("RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration")
    check_missing(parse(f"{text}{key}=\n"))


def test_keys_that_are_commented_out_are_known_and_prose_is_not(tmp_path: Path) -> None:
    example = tmp_path / "example"
    example.write_text("# Why=not\nA=\n# B=x:y\n#C=\n# Says D=1 here\n", encoding="utf-8")
    assert known_keys(example) == {"A", "B", "C"}


KEYS = st.text(string.ascii_uppercase, min_size=1, max_size=3)
PLAIN = st.text(string.ascii_letters + string.digits + "-_./:@+=#", min_size=1).filter(
    lambda text: text[0] != "#"
)
FILLER = st.sampled_from(["", "# a comment", "#", "#\tNOTE"])


@given(
    st.dictionaries(KEYS, st.one_of(st.just(""), PLAIN)),
    st.dictionaries(KEYS, PLAIN),
    st.lists(FILLER),
)
def test_values_that_are_written_are_read_again_and_no_other_is_changed(
    before: dict[str, str], given: dict[str, str], comments: list[str]
) -> None:
    added = {key: value for key, value in given.items() if not before.get(key)}
    lines = [f"{key}={value}" for key, value in before.items()]
    text = "".join(f"{line}\n" for line in [*comments, *lines])
    assert values(with_values(text, added)) == {**before, **added}


@given(st.dictionaries(KEYS, PLAIN, min_size=1), st.dictionaries(KEYS, PLAIN, min_size=1))
def test_a_value_that_stands_there_is_replaced_and_not_doubled(
    before: dict[str, str], given: dict[str, str]
) -> None:
    text = "".join(f"{key}={value}\n" for key, value in before.items())
    assert values(with_values(text, given)) == {**before, **given}


@pytest.mark.parametrize("above", ["", "#", "# why", "A=1"])
def test_the_lines_above_a_value_that_is_filled_in_stay(above: str) -> None:
    assert with_values(f"{above}\nKEY=\n", {"KEY": "x"}) == f"{above}\nKEY=x\n"


def test_a_key_that_is_commented_out_is_filled_in_where_it_stands() -> None:
    assert with_values("# KEY=\nA=1\n", {"KEY": r"C:\1"}) == "KEY=C:\\1\nA=1\n"


@pytest.mark.parametrize(
    ("line", "value", "written"),
    [
        ("A='b #c' # why", "d", "A=d # why"),
        ("  A=b  # why", "d e", "  A=d e  # why"),
        ("A=b # why", "d #e", "A='d #e' # why"),
        ("A=b", "it's", "A=it's"),
        ("A=b", "it's #1", 'A="it\'s #1"'),
        ("A=b", "$1", "A='$1'"),
        ("A='b' # why", "b", "A='b' # why"),
        ("A='b' # why", "", "A='' # why"),
        ("A='b'", "", "A="),
    ],
)
def test_quotes_and_comments_around_a_value_stay(line: str, value: str, written: str) -> None:
    assert with_values(f"{line}\n", {"A": value}) == f"{written}\n"
    assert values(f"{written}\n") == {"A": value}


@given(st.text(st.characters(codec="utf-8")))
def test_a_value_is_written_so_that_it_is_read_again_or_refused(value: str) -> None:
    try:
        written = quoted(value)
    except ValueError:
        return
    assert values(f"A={written}\n") == {"A": value}


def test_the_example_itself_can_be_used() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = parse(text)
    check_keys(lines, known_keys(ROOT / ".env.example"))
    check_missing(lines)
    assert values(with_values(text, {"HTTP_PORT": "1"})) == {**values(text), "HTTP_PORT": "1"}
