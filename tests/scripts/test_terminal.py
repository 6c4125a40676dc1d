"""Tests the output of a story on a real pseudo-terminal and in a pipe."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stack.attempt_log import KEPT_LOGS

from tests.scripts.conftest import ROOT
from tests.scripts.screen import Session, on_terminal

# Each line is wider than a terminal, and contains an umlaut and the codes of a colour and a title.
BUILD = (
    "import sys, time\n"
    "for number in range(int(sys.argv[1])):\n"
    "    text = f'\\x1b[31m#{number}\\x1b[0m \\x1b]0;title\\x07 ü step'\n"
    "    print(text, 'x' * 150, file=sys.stderr, flush=True)\n"
    "    time.sleep(0.5)\n"
)
SHOWN = "ü step"
STORY = """
import sys
from pathlib import Path
from stack import terminal
from stack.commands.command import Command
from stack.config.project import Project
from stack.failure import Failure
from stack.parts.lock import exclusive
from stack.parts.steps import Steps
from stack.runner import RealRunner

root, state, build, rounds, *options = sys.argv[1:]
runner = RealRunner(terminal.choose(is_verbose="--verbose" in options))
runner.say("plan:\\n  1. image: " + "build it " * 20)
try:
    with exclusive(runner, Project(Path(root), {"STATE_DIR": state}), "deploy"):
        steps = Steps(runner, runner.clock())
        with steps.step("image") as result:
            runner.say("    a note: é")
            runner.run(Command([sys.executable, "-c", build, rounds]))
            result("release r-1, " + "and more " * 20)
        with steps.step("settings"):
            runner.write(Path(state, "made"), "x", 0o600)
        if "--fail" in options:
            with steps.step("start"):
                runner.run(Command(["false"]))
except Failure as failure:
    failure.hints += runner.display.log.hints()
    runner.display.report(str(failure))
runner.say("live: release r-1")
"""


def story(tmp_path: Path, *options: str, rounds: int = 5) -> list[str]:
    return [
        sys.executable,
        "-c",
        STORY,
        str(tmp_path),
        str(tmp_path / "state"),
        BUILD,
        str(rounds),
        *options,
    ]


def variables(**more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT / "scripts"), "LANG": "C.UTF-8", **more}


def finished(session: Session) -> list[str]:
    """Return the final screen; check that no line wraps and that the cursor starts a line."""
    assert session.finish() == 0, session.written
    screen = session.screen()
    assert screen.wrapped == 0
    assert (screen.column, screen.style) == (0, "")
    return screen.text()


def plain(text: str) -> str:
    """Replace the durations of a transcript, because they differ from run to run."""
    return re.sub(r"\d+\.\d s", "T s", text.replace("\r\n", "\n"))


@pytest.mark.parametrize("columns", [60, 100])
def test_a_step_is_one_line_that_counts_its_seconds_and_ends_with_its_result(
    tmp_path: Path, columns: int
) -> None:
    with on_terminal(story(tmp_path), columns=columns, env=variables()) as session:
        lines = finished(session)
        screen = session.screen()
    shown = [line for frame in screen.frames for line in frame]
    counted = re.findall(r"^\.\.  image +(\d+) s$", "\n".join(shown), re.MULTILINE)
    seconds = [int(number) for number in counted]
    assert seconds == sorted(seconds)
    assert len(set(seconds)) > 1, "the seconds do not increase"
    numbers = re.findall(r"^    #(\d)  ü step xxx", "\n".join(shown), re.MULTILINE)
    assert len(set(numbers)) > 1, "the output of the command is not shown as it arrives"
    for frame in screen.frames:
        assert sum(line.startswith("..") for line in frame) <= 1
        assert sum(line.startswith("    #") for line in frame) <= 1
    assert [line for line in lines if line.startswith(("..", "    #"))] == []
    (step,) = [line for line in lines if line.startswith("ok  image")]
    assert re.match(r"ok  image +2\.\d s", step)
    assert "release r-1," in "".join(lines)
    assert lines.index("    a note: é") > lines.index(step)
    assert [line for line in lines if "python" in line or "wrote" in line] == []
    assert lines[-2:] == ["live: release r-1", ""]


def test_a_running_command_is_dimmed_and_a_result_has_colour(tmp_path: Path) -> None:
    with on_terminal(story(tmp_path, "--fail"), env=variables()) as session:
        session.read_until(lambda: SHOWN in session.written, "output of the command")
        assert session.screen().style_of(SHOWN) == {"2"}
        lines = finished(session)
        screen = session.screen()
    assert "32" in screen.style_of("ok  image")
    assert screen.style_of("!!") == screen.style_of("failed") == {"31"}
    assert screen.style_of("error:") == {"31"}
    assert screen.style_of("live: release") == {""}
    (failed,) = [line for line in lines if line.startswith("!!  start")]
    assert re.fullmatch(r"!!  start +0\.\d s  failed", failed)
    (error,) = [number for number, line in enumerate(lines) if line.startswith("error: `false`")]
    assert error > lines.index(failed)


@pytest.mark.parametrize("way", ["pipe", "NO_COLOR", "--verbose", "dumb"])
def test_where_no_colour_is_wanted_lines_are_plain(tmp_path: Path, way: str) -> None:
    options = ["--verbose"] if way == "--verbose" else []
    more = {"NO_COLOR": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}.get(way, {})
    argv = story(tmp_path, *options, rounds=1)
    if way == "pipe":
        ended = subprocess.run(
            argv, env=variables(TERM="xterm"), capture_output=True, text=True, check=True
        )
        text = ended.stdout
    else:
        with on_terminal(argv, env=variables(**more)) as session:
            assert session.finish() == 0
            text = session.written
    start, command, end = plain(text).partition("    $ ")
    assert start == (f"plan:\n  1. image: {'build it ' * 20}\n==> image [T s]\n    a note: é\n")
    assert command
    assert "range(int(sys.argv[1]))" in end
    assert end.split("' 1\n")[-1] == (
        f"    release r-1, {'and more ' * 20} (T s)\n"
        f"==> settings [T s]\n    wrote {tmp_path}/state/made (mode 0600)\n    done (T s)\n"
        "live: release r-1\n"
    )


def log_of(tmp_path: Path) -> Path:
    (log,) = (tmp_path / "state/attempts").iterdir()
    return log


@pytest.mark.parametrize("columns", [0, 100], ids=["pipe", "terminal"])
def test_the_log_of_an_attempt_has_every_command_and_an_error_names_it(
    tmp_path: Path, columns: int
) -> None:
    argv = story(tmp_path, "--fail", rounds=1)
    if columns:
        with on_terminal(argv, columns=columns, env=variables()) as session:
            shown = "\n".join(finished(session))
    else:
        shown = subprocess.run(
            argv, env=variables(), stdout=-1, stderr=subprocess.STDOUT, text=True, check=True
        ).stdout
    log = log_of(tmp_path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-deploy\.log", log.name)
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o750
    text = log.read_text(encoding="utf-8")
    assert all(re.match(r"\d\d:\d\d:\d\d( |$)", line) for line in text.splitlines())
    logged = re.sub(r"^\d\d:\d\d:\d\d ?", "", text, flags=re.MULTILINE)
    for part in ("plan:", "==> image", f"    $ {sys.executable} -c", "    wrote ", "    $ false"):
        assert f"\n{part}" in f"\n{logged}"
    assert "    failed (" in logged
    assert "HINT: every command as run:" in logged
    assert str(log) in re.sub(r"\s+", "", shown)


def test_the_newest_logs_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state/attempts"
    folder.mkdir(parents=True)
    for number in range(KEPT_LOGS + 5):
        (folder / f"20200101T0000{number:02}Z-deploy.log").touch()
    subprocess.run(story(tmp_path, rounds=0), env=variables(), stdout=-1, check=True)
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == KEPT_LOGS
    assert names[0] == "20200101T000006Z-deploy.log"
    assert not names[-1].startswith("2020")


@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_a_log_that_cannot_be_written_stops_no_story_and_is_not_named(
    tmp_path: Path, fault: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    argv = story(tmp_path, "--fail", rounds=0)
    if fault == "no folder":
        (state / "attempts").touch()
    else:
        # A limit on the size of a file: the next write to the log fails, as on a full disk.
        argv = ["prlimit", "--fsize=200", *argv]
    ended = subprocess.run(argv, env=variables(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout.endswith("live: release r-1\n")
    assert "error: `false`" in ended.stderr
    assert "every command as run" not in ended.stderr


def test_a_terminal_that_goes_away_ends_no_story(tmp_path: Path) -> None:
    with on_terminal(story(tmp_path), env=variables()) as session:
        session.read_until(lambda: SHOWN in session.written, "output of the command")
        os.close(session.terminal)
        session.terminal = -1
        assert session.process.wait(60) == 0
    assert (tmp_path / "state/made").read_text(encoding="ascii") == "x"
    assert "live: release r-1" in log_of(tmp_path).read_text(encoding="utf-8")


STALLED = """
import os, sys
from pathlib import Path
from stack import terminal
from stack.commands.command import Command
from stack.parts.steps import Steps
from stack.runner import RealRunner

runner = RealRunner(terminal.choose(is_verbose=False))
with Steps(runner, 0).step("image"):
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, b"x")
    except BlockingIOError:
        os.set_blocking(1, True)
    runner.run(Command(["sh", "-c", "sleep 1; echo output; sleep 1"]))
    runner.run(Command(["touch", sys.argv[1]]))
"""


def test_a_command_does_not_wait_for_a_terminal_that_takes_nothing(tmp_path: Path) -> None:
    """After Ctrl-S a story waits when it prints a result, but not while it counts seconds."""
    made = tmp_path / "made"
    with on_terminal([sys.executable, "-c", STALLED, str(made)], env=variables()) as session:
        deadline = time.monotonic() + 30
        while not made.exists():
            assert time.monotonic() < deadline, "the command waits for the terminal"
            time.sleep(0.05)
        assert session.finish() == 0


NON_BLOCKING = """
import os
from stack import terminal

os.set_blocking(1, False)
display = terminal.choose(is_verbose=False)
for number in range(2000):
    display.status_row(is_well=True, name="row", text=f"number {number}.")
"""


def test_a_terminal_that_another_program_made_non_blocking_gets_every_line() -> None:
    with on_terminal([sys.executable, "-c", NON_BLOCKING], env=variables()) as session:
        time.sleep(1)  # the terminal's buffer is full by then
        assert session.finish() == 0
    assert all(f"number {number}." in session.written for number in (0, 1000, 1999))


def test_a_script_that_is_killed_leaves_a_terminal_in_order(tmp_path: Path) -> None:
    with on_terminal(story(tmp_path), env=variables()) as session:
        session.read_until(lambda: SHOWN in session.written, "output of the command")
        session.process.send_signal(signal.SIGKILL)
        assert session.finish() == -signal.SIGKILL
        screen = session.screen()
    assert (screen.column, screen.style) == (0, "")
    assert "    $ " in log_of(tmp_path).read_text(encoding="utf-8")


def test_a_locale_without_the_characters_stops_no_story(tmp_path: Path) -> None:
    ascii_only = variables(PYTHONIOENCODING="ascii", LANG="C")
    with on_terminal(story(tmp_path), env=ascii_only) as session:
        lines = finished(session)
    assert "    a note: ?" in lines
    assert any(line.startswith("ok  image") for line in lines)


# Lines of commands appear and disappear all the time; threads switch as often as possible.
THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from stack import terminal
from stack.runner import RealRunner

terminal.QUIET_SECONDS, terminal.TICK_SECONDS = 0, 0.001
sys.setswitchinterval(1e-6)
runner = RealRunner(terminal.choose(is_verbose=False))
with ThreadPoolExecutor(8) as pool:
    for number in range(400):
        pool.submit(runner.say, f"line {number:03}")
        with runner.display.command("$ true"):
            runner.display.status_row(is_well=True, name="row", text=str(number))
"""


def test_lines_of_several_threads_are_whole() -> None:
    with on_terminal([sys.executable, "-c", THREADS], env=variables()) as session:
        lines = finished(session)
    rows = [f"ok  row              {number}" for number in range(400)]
    assert [line for line in lines if line.startswith("ok")] == rows
    printed = [f"line {number:03}" for number in range(400)]
    assert sorted(line for line in lines if line and not line.startswith("ok")) == printed


def test_a_terminal_that_gets_narrower_is_asked_again(tmp_path: Path) -> None:
    with on_terminal(story(tmp_path), columns=100, env=variables()) as session:
        session.read_until(lambda: SHOWN in session.written, "output of the command")
        session.resize(60)
        before = len(session.written)
        lines = finished(session)
        assert SHOWN in session.written[before:]
    (step,) = [number for number, line in enumerate(lines) if line.startswith("ok  image")]
    assert max(len(line) for line in lines[:step]) > 60
    assert max(len(line) for line in lines[step:]) <= 60
