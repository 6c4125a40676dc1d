"""Where the scripts ask the machine itself and not the runner: answers of the simulated host.

Each entry is one place of scripts/stack that has no runner between it and the machine. A new place
makes a run depend on the machine of the test, which
`test_the_same_history_ends_in_the_same_way` would show.
"""

import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

from stack import attempt_log
from stack.config import environment
from stack.parts import images, ledger, lock, machine, ports, preflight
from stack.stories import restore, status

from tests.simulator.clock import datetime_of
from tests.simulator.host import Host

parse_once = lru_cache(maxsize=256)(environment.parse)
Usage = namedtuple("Usage", ["total", "used", "free"])
TOTAL, FREE = 100_000_000_000, 40_000_000_000
MEMINFO = "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n"
TIMED = (attempt_log, images, ledger, lock, preflight, restore, status)


class OneAfterTheOther:
    """Stands for a pool of threads: the looks run in one order, so that a seed decides all."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        """Call the function for each value."""
        return [function(value) for value in values]


def socket_module(host: Host) -> SimpleNamespace:
    """Return what the preflight asks of `socket`: whether a port is free."""

    class Listener:
        def __init__(self, _: int) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def setsockopt(self, *_: int) -> None:
            pass

        def bind(self, address: tuple[str, int]) -> None:
            if str(address[1]) in host.engine.used_ports:
                raise OSError(98, "Address already in use")

    return SimpleNamespace(socket=Listener, AF_INET=2, AF_INET6=10, SOL_SOCKET=1, SO_REUSEADDR=2)


@contextmanager
def simulated(host: Host) -> Iterator[None]:
    """Have the scripts see the simulated host's time, disk, ports, processes and boot."""

    def disk_usage(_: Path) -> Usage:
        free = 0 if host.state.is_disk_full else FREE
        return Usage(TOTAL, TOTAL - free, free)

    clock = datetime_of(host.clock.moment)
    programs = SimpleNamespace(disk_usage=disk_usage, which=lambda name: f"/usr/bin/{name}")
    timex = SimpleNamespace(adjtimex=lambda _: 0)
    places: list[tuple[object, str, object]] = [
        *((module, "datetime", clock) for module in TIMED),
        *((module, "shutil", programs) for module in (preflight, status, machine)),
        # The same text has the same lines: each command reads .env and .env.example several times.
        (environment, "parse", parse_once),
        (tempfile, "tempdir", str(host.folder)),
        (ports, "socket", socket_module(host)),
        (machine, "read_id", lambda: host.state.machine),
        (preflight, "_meminfo", lambda: MEMINFO),
        (machine, "booted_at", lambda: host.clock.moment_at(host.state.booted_at)),
        # A killed story's processes end with it; faults.py decides whether they did their work.
        (lock, "_have_ended", lambda *_: True),
        (status, "ThreadPoolExecutor", OneAfterTheOther),
        (status, "ctypes", SimpleNamespace(CDLL=lambda _: timex, create_string_buffer=len_of)),
    ]
    with ExitStack() as stack:
        for module, name, stand_in in places:
            stack.enter_context(patch.object(module, name, stand_in))
        yield


def len_of(size: int) -> int:
    """Stand for a buffer, which nothing reads."""
    return size
