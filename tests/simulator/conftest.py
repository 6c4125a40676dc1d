"""A simulated host for each file of tests, with its five start states."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator import starts
from tests.simulator.host import Copy, Host

OBJECTS = 100_000  # between two collections, about 100 actions; few of their objects are in cycles


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The folder of the simulated host, with a clean environment around it."""
    with starts.new_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def copies(folder: Path) -> Iterator[dict[str, Copy]]:
    """A copy of a host in each start state."""
    made = starts.copies(folder)
    # The collector would go through all modules of the suite over and over again.
    gc.collect()
    gc.freeze()
    present = gc.get_threshold()
    gc.set_threshold(OBJECTS)
    yield made
    gc.set_threshold(*present)


@pytest.fixture
def host(folder: Path, copies: dict[str, Copy]) -> Host:
    """A host; a test sets its start state."""
    return Host(folder)
