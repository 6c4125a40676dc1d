"""A simulated host for each process of the suite, with its five start states."""

import gc
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
MEMORY = Path("/dev/shm")  # a file system in memory; the tests work without it too
# The machine's own docker client, proxies and certificates must not reach the simulated host.
FOREIGN = ("DOCKER_HOST", "DOCKER_CONTEXT", "DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The folder of the simulated host, with a clean environment around it."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder, present = Path(tempfile.mkdtemp(prefix="slipway-simulator-", dir=parent)), Path.cwd()
    known = environment.known_keys(ROOT / ".env.example") | set(FOREIGN)
    with pytest.MonkeyPatch.context() as patch:
        for key in known & os.environ.keys():
            patch.delenv(key)
        # The state directory of every checkout, as the default is on a real host.
        patch.setenv("STATE_DIR", str(folder / "state"))
        patch.setenv("DOCKER_CONFIG", str(folder / "docker"))
        patch.setenv("SSL_CERT_FILE", os.devnull)
        yield folder
    os.chdir(present)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def copies(folder: Path) -> dict[str, Copy]:
    """A copy of a host in each start state."""
    made = starts.copies(folder)
    # The collector would go through all modules of the suite over and over again.
    gc.collect()
    gc.freeze()
    return made


@pytest.fixture
def host(folder: Path, copies: dict[str, Copy]) -> Host:
    """A host; a test sets its start state."""
    return Host(folder)
