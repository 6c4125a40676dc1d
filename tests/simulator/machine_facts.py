"""Answers of the simulated host where the scripts query the machine without a runner.

Each entry is one place of scripts/stack that queries the machine directly. A new place would make a
run depend on the machine of the test; `test_the_same_history_ends_in_the_same_way` would fail.
"""

import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from stack import attempt_log
from stack.config import checks, environment, project, service, surroundings
from stack.parts import images, ledger, lock, machine, ports, preflight, window
from stack.rules import host_limits
from stack.stories import restore, status

from counter import datagrams
from tests.simulator.clock import datetime_of
from tests.simulator.host import Host
from tests.simulator.paths import path_of

Place = tuple[object, str, object]  # a module, a name in it, and what stands for its value
parse_once = lru_cache(maxsize=256)(environment.parse)
parse_service_once = lru_cache(maxsize=16)(service.parse)
parse_datagram_once = lru_cache(maxsize=4096)(datagrams.parse)
Usage = namedtuple("Usage", ["total", "used", "free"])
TOTAL, FREE = 100_000_000_000, 40_000_000_000
MEMINFO = "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n"
TIMED = (attempt_log, images, ledger, lock, preflight, restore, status, window)


class OneAfterTheOther:
    """Replaces a pool of threads: queries run in one order, so that a seed decides everything."""

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
    """Return a replacement of `socket` that tells the preflight whether a port is free."""

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
def replaced(places: Sequence[Place]) -> Iterator[None]:
    """Replace values of modules, and put them back; `unittest.mock` takes ten times as long."""
    former = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, stand_in in places:
            setattr(module, name, stand_in)
        yield
    finally:
        for module, name, value in reversed(former):
            setattr(module, name, value)


@lru_cache(maxsize=4)
def places_of(host: Host) -> Sequence[Place]:
    """Return where the scripts see the simulated host's time, disk, ports, processes and boot."""

    def disk_usage(_: Path) -> Usage:
        free = 0 if host.state.is_disk_full else FREE
        return Usage(TOTAL, TOTAL - free, free)

    def moment() -> datetime:
        return host.clock.moment()  # a host that is put back has another clock

    clock = datetime_of(moment)
    programs = SimpleNamespace(disk_usage=disk_usage, which=lambda name: f"/usr/bin/{name}")
    timex = SimpleNamespace(adjtimex=lambda _: 0)
    return [
        *((module, "datetime", clock) for module in TIMED),
        *((module, "shutil", programs) for module in (preflight, status, machine)),
        # Parse and judge each text once: each command reads these files several times.
        (environment, "parse", parse_once),
        (checks, "faults", list_faults_once),
        (service, "parse", parse_service_once),
        (datagrams, "parse", parse_datagram_once),
        (host_limits, "free_networks", count_networks_once),
        (project, "Path", path_of),
        (surroundings, "Path", path_of),
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


def list_faults_once(values: Mapping[str, str], secrets: Path) -> list[str]:
    """Return the faults of `.env`; only a repository off the host, which needs files, is not kept.

    The simulated host has none.
    """
    assert not values.get("OFFSITE_TYPE")
    return list(_list_faults(tuple(values.items()), secrets))


_list_real = checks.faults


@lru_cache(maxsize=1024)
def _list_faults(values: tuple[tuple[str, str], ...], secrets: Path) -> list[str]:
    return _list_real(dict(values), secrets)


def count_networks_once(pools: Iterable[tuple[str, int]], used: Iterable[str]) -> int:
    """Return the networks that are left; the networks of the simulated engine stay the same."""
    return _count_networks(tuple(pools), tuple(used))


_count_real = host_limits.free_networks


@lru_cache(maxsize=16)
def _count_networks(pools: tuple[tuple[str, int], ...], used: tuple[str, ...]) -> int:
    return _count_real(pools, used)


def len_of(size: int) -> int:
    """Replace a buffer that nothing reads."""
    return size
