"""Gives a test a counter, alone or with a real nginx in front of two slots."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counter.processes import NGINX, Counter, Edge, running_edge


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short path: the path of a Unix socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="counter-") as folder:
        yield Path(folder)


@pytest.fixture
def counter(short_path: Path) -> Iterator[Counter]:
    folder = short_path / "counter"
    folder.mkdir(exist_ok=True)
    process = Counter(folder)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def edge(short_path: Path) -> Iterator[Edge]:
    """A real nginx without a counter; `edge_with_counter` has one."""
    if not NGINX:
        pytest.skip("no nginx on this machine; tests/stack/test_counter.py runs the stack's")
    with running_edge(short_path) as running:
        yield running


@pytest.fixture
def fed(edge: Edge) -> Iterator[Counter]:
    """The counter of `edge`."""
    process = Counter(edge.folder / "counter")
    process.start()
    yield process
    process.kill()
