"""A simulated host for each process of the suite, with its five start states."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.config import environment

from tests.simulator import starts
from tests.simulator.host import Copy, Host

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory; the tests work without it too


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The folder of the simulated host, with a clean environment around it."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="slipway-simulator-", dir=parent))
    known = environment.known_keys(ROOT / ".env.example")
    former = {key: os.environ.pop(key) for key in list(os.environ) if key in known}
    os.environ["STATE_DIR"] = str(folder / "state")
    yield folder
    del os.environ["STATE_DIR"]
    os.environ.update(former)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def starts_of(folder: Path) -> dict[str, Copy]:
    """A copy of a host in each start state."""
    return starts.copies(folder)


@pytest.fixture
def host(folder: Path, starts_of: dict[str, Copy]) -> Host:
    """A host; a test puts the start that it wants into it."""
    return Host(folder)
