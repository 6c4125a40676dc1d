"""Tests the lock with real processes: it names its holder, and is free once the holder ends."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import LOCKED, Failure
from stack.parts.lock import exclusive
from stack.runner import RealRunner, Result

from tests.scripts.conftest import ROOT
from tests.scripts.recording import RecordingRunner

HOLDER = """
import sys
from pathlib import Path
from stack.commands.command import Command
from stack.config.project import Project
from stack.runner import RealRunner
from stack.parts.lock import exclusive

runner = RealRunner()
with exclusive(runner, Project(Path(sys.argv[1]), {"STATE_DIR": sys.argv[2]}), "deploy"):
    print("held", flush=True)
    exec(sys.argv[3])
"""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def holder(project: Project, then: str = "sys.stdin.read()") -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes the lock, and kill the process at the end of the block."""
    argv = [sys.executable, "-c", HOLDER, str(project.root), str(project.state), then]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        for end in (process.stdin, process.stdout):
            if end:
                end.close()


def is_free(project: Project) -> bool:
    with (project.state / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not count."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
            != "Z"
        )
    except OSError:
        return False


def test_a_second_one_is_refused_at_once_and_names_the_holder(
    loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    with holder(loaded) as process:
        started = time.monotonic()
        with pytest.raises(Failure) as raised, exclusive(RealRunner(), loaded, "rollback"):
            pytest.fail("two processes hold the lock")
        assert time.monotonic() - started < 1
        facts = json.loads((loaded.state / "lock").read_text(encoding="utf-8"))
        named = f"deploy by ada, process {process.pid}, since {facts['since']}"
        assert raised.value.observation == f"another command holds the lock: {named}"
        assert (raised.value.code, raised.value.runbook) == (LOCKED, "two-deploys-at-once")


def test_it_is_free_after_the_block_and_after_a_failure_in_it(loaded: Project) -> None:
    with pytest.raises(Failure, match="the reason"), exclusive(RealRunner(), loaded, "deploy"):
        raise Failure("the reason")
    assert is_free(loaded)
    with exclusive(RealRunner(), loaded, "deploy"):
        assert not is_free(loaded)
    assert is_free(loaded)
    assert (loaded.state / "lock").read_bytes() == b"", "the lock still names an ended process"


def test_a_holder_that_is_killed_frees_it(loaded: Project) -> None:
    with holder(loaded) as process:
        process.kill()
        process.wait(10)
        with exclusive(RealRunner(), loaded, "deploy"):  # fails at once if the lock is not free
            pass


def test_waiting_ends_when_the_holder_does(loaded: Project) -> None:
    with holder(loaded) as process:

        class Releasing(RealRunner):
            def sleep(self, seconds: float) -> None:
                assert process.stdin
                process.stdin.close()
                super().sleep(seconds)

        with exclusive(Releasing(), loaded, "deploy", 60):
            assert process.wait(10) == 0


def test_waiting_has_an_end(loaded: Project) -> None:
    runner = RecordingRunner()
    with holder(loaded), pytest.raises(Failure), exclusive(runner, loaded, "deploy", 30):
        pass
    assert 30 <= runner.now < 31


def test_a_child_does_not_keep_it(loaded: Project, tmp_path: Path) -> None:
    left = tmp_path / "left"
    command = f"Command(['sh', '-c', 'echo $$ >{left}; exec sleep 60'])"
    script = f"runner.start({command}, Path('{tmp_path}/log'))"
    with holder(loaded, script) as process:
        process.wait(10)
        until(
            lambda: left.exists() and left.read_text(encoding="ascii").strip(),
            "the child has not started",
        )
        pid = int(left.read_text(encoding="ascii"))
        try:
            with exclusive(RealRunner(), loaded, "deploy"):
                assert is_running(pid), "the child ended with its command"
        finally:
            os.kill(pid, signal.SIGKILL)


def test_what_a_killed_holder_left_running_is_ended_first(loaded: Project, tmp_path: Path) -> None:
    left = tmp_path / "left"
    with holder(
        loaded, f"runner.read(Command(['sh', '-c', 'echo $$ >{left}; exec sleep 60']))"
    ) as process:
        until(
            lambda: left.exists() and left.read_text(encoding="ascii").strip(),
            "the child has not started",
        )
        pid = int(left.read_text(encoding="ascii"))
        process.kill()
        process.wait(10)
        assert is_running(pid)
        assert is_free(loaded), "the orphan holds the lock"
        with exclusive(RealRunner(), loaded, "deploy"):
            assert not is_running(pid)


def test_an_orphan_that_ignores_the_first_signal_gets_the_second(
    loaded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.parts.lock.ORPHAN_SECONDS", 0.5)
    left = tmp_path / "left"
    stubborn = f'trap "" TERM; echo $$ >{left}; while :; do sleep 0.05; done'
    with holder(loaded, f"runner.read(Command(['sh', '-c', {stubborn!r}]))") as process:
        until(
            lambda: left.exists() and left.read_text(encoding="ascii").strip(),
            "the child has not started",
        )
        pid = int(left.read_text(encoding="ascii"))
        process.kill()
        process.wait(10)
        with exclusive(RealRunner(), loaded, "deploy"):
            assert not is_running(pid)


def test_a_process_of_somebody_else_is_left_alone(loaded: Project) -> None:
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "SLIPWAY_RUN": "1"})
    try:
        loaded.state.mkdir(parents=True)
        (loaded.state / "lock").write_text('{"pid": 2}', encoding="utf-8")
        with exclusive(RealRunner(), loaded, "deploy"):
            assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"[]", b'{"pid": "x"}', b"\xff", b'{"pid": null}']
)
def test_a_spoiled_lock_file_stops_nobody(loaded: Project, content: bytes) -> None:
    loaded.state.mkdir(parents=True)
    (loaded.state / "lock").write_bytes(content)
    with exclusive(RealRunner(), loaded, "deploy"):
        assert json.loads((loaded.state / "lock").read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_a_holder_that_has_not_said_who_it_is_still_holds_it(loaded: Project) -> None:
    loaded.state.mkdir(parents=True)
    with (loaded.state / "lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(Failure, match="its holder has not written its name yet"),
            exclusive(RealRunner(), loaded, "up"),
        ):
            pass


def test_a_dry_run_takes_no_lock(loaded: Project) -> None:
    with exclusive(RecordingRunner(is_dry=True), loaded, "deploy"):
        assert not loaded.state.exists()


@pytest.mark.parametrize(
    ("command", "removed"), [("upgrade-postgres", ["docker rm --force 1a 2b"]), ("deploy", [])]
)
def test_the_servers_of_an_upgrade_that_was_killed_are_removed_before_anything_else(
    loaded: Project, runner: RecordingRunner, command: str, removed: list[str]
) -> None:
    left = iter([Result(0, "1a\n2b\n")])
    runner.reply(r"name=^/?slipway-postgres-old$", lambda: next(left, Result(0)))
    loaded.state.mkdir(exist_ok=True)
    facts = {
        "command": command,
        "who": "ada",
        "pid": 2**22 + 1,
        "since": "2026-01-01",
    }  # larger than any process id, so no such process exists
    (loaded.state / "lock").write_text(json.dumps(facts), encoding="utf-8")
    with exclusive(runner, loaded, "up"):
        assert runner.ran == removed
    with exclusive(runner, loaded, "up"):
        assert runner.ran == removed, "the removal ran twice"


def test_the_servers_of_an_upgrade_stay_its_holders_while_the_engine_does_not_remove_them(
    loaded: Project, runner: RecordingRunner
) -> None:
    runner.reply("docker ps", Result(0, "1a\n"))
    runner.reply("docker rm", Result(1, err="no engine"))
    loaded.state.mkdir(exist_ok=True)
    facts = {"command": "upgrade-postgres", "who": "ada", "pid": 2**22 + 1, "since": "2026-01-01"}
    (loaded.state / "lock").write_text(json.dumps(facts), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(Failure, match="cannot be removed: 1a"), exclusive(runner, loaded, "up"):
            pytest.fail("the block started while the old server runs")
