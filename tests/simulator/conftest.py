"""A simulated host for each process of the suite, with its five start states."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator import starts
from tests.simulator.host import Copy, Host


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The folder of the simulated host, with a clean environment around it."""
    with starts.new_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def copies(folder: Path) -> dict[str, Copy]:
    """A copy of a host in each start state."""
    return starts.copies(folder)


@pytest.fixture
def host(folder: Path, copies: dict[str, Copy]) -> Host:
    """A host; a test puts the start that it wants into it."""
    return Host(folder)
