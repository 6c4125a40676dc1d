"""Tests several real, idle worker processes under one supervisor."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.supervisor import FIRST_PAUSE_SECONDS

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from worker import supervisor

folder = Path(sys.argv[1])

def work(number):
    if sys.argv[2] == "fails":
        (folder / f"{number}.{time.monotonic_ns()}").touch()
        raise RuntimeError("broken")
    signal.signal(signal.SIGTERM, lambda *_: ((folder / f"drained.{number}").touch(), sys.exit(0)))
    (folder / f"{number}.{os.getpid()}").touch()
    while True:
        signal.pause()

supervisor.FIRST_PAUSE_SECONDS = float(sys.argv[4])
supervisor.Supervisor(int(sys.argv[3]), work).run()
"""


@contextmanager
def supervised(
    folder: Path, kind: str, count: int, pause_seconds: float = FIRST_PAUSE_SECONDS
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", PROGRAM, str(folder), kind, str(count), str(pause_seconds)]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2]) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pids(folder: Path) -> dict[int, set[int]]:
    """Return the process ids of each worker number."""
    pids_by_number: dict[int, set[int]] = {}
    for path in folder.glob("[0-9].*"):
        pids_by_number.setdefault(int(path.stem), set()).add(int(path.suffix[1:]))
    return pids_by_number


def test_each_process_is_replaced_when_it_dies_and_the_others_are_left_alone(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path, "works", 3):
        until(lambda: len(pids(tmp_path)) == 3)
        (victim,) = pids(tmp_path)[1]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(pids(tmp_path)[1]) == 2)
        assert [len(pids(tmp_path)[number]) for number in (0, 2)] == [1, 1]


def test_a_signal_reaches_every_process_once_and_the_first_waits_for_the_last(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path, "works", 3) as process:
        until(lambda: len(pids(tmp_path)) == 3)
        process.terminate()
        assert process.wait(10) == 0
    assert {path.name for path in tmp_path.glob("drained.*")} == {
        "drained.0",
        "drained.1",
        "drained.2",
    }
    assert {len(started) for started in pids(tmp_path).values()} == {1}, "no process was restarted"


def test_a_stop_does_not_wait_for_the_end_of_a_pause(tmp_path: Path) -> None:
    with supervised(tmp_path, "fails", 1, pause_seconds=30) as process:
        until(lambda: pids(tmp_path).get(0))
        process.terminate()
        assert process.wait(20) == 0
    assert len(pids(tmp_path)[0]) == 1


def test_a_process_that_cannot_work_is_started_again_with_growing_pauses(tmp_path: Path) -> None:
    with supervised(tmp_path, "fails", 1):
        until(lambda: len(pids(tmp_path).get(0, ())) == 3)
    times = sorted(pids(tmp_path)[0])
    # The time between two starts is at least the pause, and longer on a busy machine.
    first, second = ((later - earlier) / 1e9 for earlier, later in itertools.pairwise(times))
    assert first >= FIRST_PAUSE_SECONDS
    assert second >= 2 * FIRST_PAUSE_SECONDS
