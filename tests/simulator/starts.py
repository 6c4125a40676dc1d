"""The states from which histories begin; real commands lead to each."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.config import environment

from tests.simulator import actions
from tests.simulator.files import ROOT
from tests.simulator.histories import History
from tests.simulator.host import Copy, Host
from tests.simulator.paths import path_of

MEMORY = Path("/dev/shm")  # a file system in memory; the tests work without it too
# The machine's own docker client, proxies and certificates are no part of the simulated host.
FOREIGN = ("DOCKER_HOST", "DOCKER_CONTEXT", "DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR")
FIRST = "up\nwait 60"
WINDOW = f"{FIRST}\nedit good\ndeploy\nwait 60"
TAKEN_BACK = f"{WINDOW}\nedit fails-in-traffic\ndeploy\nwait 60"
STARTS: Mapping[str, str] = {
    "empty host": "",
    "first release in blue": FIRST,
    "window open, green live": WINDOW,
    "after a take-back": TAKEN_BACK,
    "rebooted, all stopped": f"{WINDOW}\nstop-all\nreboot",
}
# Each adds one fact to a start; nightly, every combination of both lists is a start.
TRAFFIC: Mapping[str, str] = {"traffic": "", "no traffic": "traffic-off"}
FACTS: Mapping[str, str] = {
    "as it was": "",
    "edited settings": "set LOG_LEVEL=DEBUG",
    "edited limit": "set API_MEMORY=300m",
    "no ledger": "lose-ledger",
    "no link": "wait 60\nlose-link",
    "no name of the live release": "untag r1\nuntag r2",
    "idle API removed": "remove api-idle",
    "Postgres stopped": "stop postgres",
}
PRODUCT: Mapping[str, tuple[str, str]] = {
    f"{start}, {traffic}, {fact}": (start, f"{TRAFFIC[traffic]}\n{FACTS[fact]}")
    for start, traffic, fact in itertools.product(STARTS, TRAFFIC, FACTS)
    if start != "empty host"
}


@contextmanager
def new_folder() -> Iterator[Path]:
    """Yield the folder of a simulated host, with a clean environment while the block runs."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder = path_of(tempfile.mkdtemp(prefix="slipway-simulator-", dir=parent))
    present = Path.cwd()
    known = environment.known_keys(ROOT / ".env.example") | set(FOREIGN)
    with pytest.MonkeyPatch.context() as patch:
        for key in known & os.environ.keys():
            patch.delenv(key)
        # The state directory of every checkout, as the default is on a real host.
        patch.setenv("STATE_DIR", str(folder / "state"))
        patch.setenv("DOCKER_CONFIG", str(folder / "docker"))
        patch.setenv("SSL_CERT_FILE", os.devnull)
        try:
            yield folder
        finally:
            os.chdir(present)
            shutil.rmtree(folder)


def copies(
    folder: Path,
    names: Iterable[str] = STARTS,
    furnish: Callable[[Host], None] = actions.name_checkout,
) -> dict[str, Copy]:
    """Return a copy of a host in each start state; every one is checked by the invariants.

    `furnish` changes the empty host, to which the others lead back.
    """
    made = {}
    bare = Host.bare(folder)
    furnish(bare)
    empty = bare.copy()
    for name in names:
        bare.put_back(empty)
        History(bare, f"to the start: {name}").play(actions.read(STARTS[name]))
        made[name] = bare.copy()
    return made


def make(host: Host, made: Mapping[str, Copy], name: str) -> Copy:
    """Return a copy of a host in one state of the product."""
    start, lines = PRODUCT[name]
    host.put_back(made[start])
    History(host, f"to the start: {name}").play(actions.read(lines))
    return host.copy()
