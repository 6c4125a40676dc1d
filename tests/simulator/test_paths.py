"""The quick paths of the simulated host answer as those of `pathlib`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulator.paths import MOST_CHILDREN, QuickPath, path_of

NAMES = ("file", "windows", "folder", "link", "dangling", "missing", "file/below", "folder/inner")
QUERIES: tuple[Callable[[Path], object], ...] = (
    Path.exists,
    Path.is_file,
    Path.is_dir,
    Path.resolve,
    Path.read_bytes,
    lambda path: path.read_text(encoding="utf-8"),
    lambda path: path.read_text(encoding="ascii", errors="replace"),
    lambda path: [path, path.parent, path.name, hash(path), str(path / Path("a/b")), path / ".."],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a path of each kind."""
    (tmp_path / "file").write_text("one ä\n", encoding="utf-8")
    (tmp_path / "windows").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


def answer(query: Callable[[Path], object], path: Path) -> object:
    """Return the answer to a query, or the error."""
    try:
        return query(path)
    except OSError as error:
        return type(error), error.errno, str(error.filename)


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_path_answers_as_any_other(folder: Path, name: str) -> None:
    quick = path_of(str(folder)) / name
    assert isinstance(quick, QuickPath)
    for query in QUERIES:
        method = getattr(QuickPath, query.__name__, query)
        assert answer(method, quick) == answer(query, folder / name)


def test_a_quick_path_shows_each_change_of_a_file(folder: Path) -> None:
    path = path_of(str(folder)) / "file"
    for text in ("two\n", "six\n"):
        (folder / "file").write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text
    (folder / "file").unlink()
    assert not path.exists()
    assert path is path_of(str(folder)) / "file"


def test_a_folder_keeps_a_limited_number_of_children() -> None:
    folder = path_of("/nowhere")
    made = [folder / str(number) for number in range(3 * MOST_CHILDREN)]
    assert [path.name for path in made] == [str(number) for number in range(3 * MOST_CHILDREN)]
    assert len(folder._children) <= MOST_CHILDREN
