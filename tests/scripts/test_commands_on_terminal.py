"""On a terminal the scripts print colours and columns, and no line wraps."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stack.config import environment

from tests.scripts.conftest import ROOT
from tests.scripts.screen import Screen, Session, on_terminal

REQUEST = "0123456789abcdef0123456789abcdef"
LONG = "a message with words that is longer than any terminal " * 6


def served(service: str, second: int, **more: object) -> str:
    entry = {"ts": f"2026-11-21T10:00:{second:02}.250+00:00", "level": "INFO", **more}
    return f"{service}-1  | 2026-11-21T10:00:{second:02}.260000001Z {json.dumps(entry)}"


SERVED = {"method": "GET", "path": "/v1/things", "status": 200}
LOGS = (
    served("worker-blue", 4, message="job failed", level="ERROR", request_id=REQUEST),
    served("api-blue", 2, message="x", request_id="f" * 32, **SERVED),
    served("api-green", 3, message=LONG, level="WARNING", request_id=REQUEST),
    "postgres-1  | 2026-11-20T23:00:00.1Z 2026-11-20 23:00:00.100 UTC [7] app=slipway.api"
    " db=slipway user=api ERROR:  division by zero",
    "redis-1  | 2026-11-21T10:00:05.5Z 1:M 21 Nov 2026 10:00:05.500 # low memory",
    "nginx-1  | 2026-11-21T10:00:06Z 2026/11/21 10:00:06 [warn] 29#29: a buffered request",
    "sink-1  | 2026-11-21T10:00:07Z \x1b]0;title\x07\x1b[2Jtext \x9b5A of a client ü 漢字",
)  # fmt: skip


@pytest.fixture
def copy(checkout: Path) -> Path:
    """A checkout with the scripts and without an engine; its `bin/` is first in PATH."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "scripts", checkout / "scripts", ignore=ignored)
    text = (checkout / ".env").read_text(encoding="utf-8")
    # No process listens on this port, even if the machine runs a stack.
    text = environment.with_values(text, {"HTTPS_PORT": "1"})
    (checkout / ".env").write_text(text, encoding="utf-8")
    (checkout / "bin").mkdir()
    return checkout


def variables(root: Path, **more: str) -> dict[str, str]:
    path = f"{root / 'bin'}:{os.environ['PATH']}"
    engine = "unix:///nonexistent/engine.sock"
    return {"PATH": path, "HOME": str(root), "DOCKER_HOST": engine, "LANG": "C.UTF-8", **more}


def install_engine(root: Path, text: str) -> Path:
    """Install a program as `docker`."""
    file = root / "bin/docker"
    file.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    file.chmod(0o755)
    return file


def shown(session: Session, code: int = 0) -> Screen:
    """Return the final screen; check that no line wraps."""
    assert session.finish() == code, session.written
    screen = session.screen()
    assert screen.wrapped == 0
    assert (screen.column, screen.style) == (0, "")
    return screen


@pytest.mark.parametrize("columns", [60, 100])
def test_the_status_has_colour_keeps_its_signs_and_fits(copy: Path, columns: int) -> None:
    argv = [str(copy / "scripts/status.sh")]
    with on_terminal(argv, columns=columns, env=variables(copy)) as session:
        screen = shown(session, code=1)
    lines = screen.text()
    assert lines[0].startswith("!!  live")
    assert screen.style_of("!!") == {"31"}
    (clock,) = [number for number, line in enumerate(lines) if line.startswith("ok  last deploy")]
    assert {style for _, style in screen.lines[clock][:2]} == {"32"}
    assert "".join(lines).replace(" ", "").endswith("theenginedoesnotanswer")


@pytest.mark.parametrize("way", ["pipe", "NO_COLOR"])
def test_the_status_has_no_colour_where_none_is_wanted(copy: Path, way: str) -> None:
    argv = [str(copy / "scripts/status.sh")]
    if way == "pipe":
        text = subprocess.run(
            argv, env=variables(copy, TERM="xterm"), stdout=-1, text=True, check=False
        ).stdout
    else:
        with on_terminal(argv, env=variables(copy, NO_COLOR="1")) as session:
            assert session.finish() == 1
            text = session.written
    assert text.startswith(
        "!!  live             `docker volume inspect slipway_slots` exited with 1"
    )
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "command", ["up", "deploy", "rollback", "upgrade-postgres", "restore", "backup", "drill"]
)
def test_every_command_that_runs_others_can_print_them(copy: Path, command: str) -> None:
    argv = [str(copy / f"scripts/{command}.sh"), "--help"]
    text = subprocess.run(argv, env=variables(copy), stdout=-1, text=True, check=True).stdout
    assert "--verbose" in text


def logs_engine(root: Path) -> None:
    """Install an engine that prints LOGS, with times only on request, as Compose does."""
    (root / "logs").write_text("\n".join(LOGS) + "\n", encoding="utf-8")
    install_engine(
        root,
        f"case \"$*\" in\n"
        f'*--services*) echo "api-blue postgres" ;;\n'
        f"*--timestamps*) cat {root}/logs ;;\n"
        f"*' logs '*) sed -E 's/ [^ ]+Z / /' {root}/logs ;;\n"
        "*) exit 1 ;;\nesac\n",
    )  # fmt: skip


@pytest.mark.parametrize("columns", [60, 100])
def test_logs_are_columns_on_a_terminal(copy: Path, columns: int) -> None:
    logs_engine(copy)
    argv = [str(copy / "scripts/logs.sh")]
    with on_terminal(argv, columns=columns, env=variables(copy)) as session:
        screen = shown(session)
    lines = screen.text()
    live = next(number for number, line in enumerate(lines) if line.startswith("live: "))
    times = [re.sub(r"(\d\d:\d\d:\d\d)\.\d\d\d", r"\1", line) for line in lines[:live]]
    begins = [
        "2026-11-20",
        "23:00:00 postgres     ERROR          division by zero",
        "2026-11-21",
        "10:00:02 api-blue     INFO  ffffffff GET /v1/things 200",
        "10:00:03 api-green    WARN  01234567 a message with w",
        "10:00:04 worker-blue  ERROR 01234567 job failed",
        "10:00:05 redis        WARN           low memory",
        "10:00:06 nginx        WARN           29#29: a buffered",
        "10:00:07 sink                        text ?5A of a cli",
    ]
    assert [line[: len(begin)] for line, begin in zip(times, begins, strict=True)] == begins
    assert lines[4].endswith("...")
    assert len(lines[4]) == columns
    assert ("10:00:04.250" in session.written) == (columns == 100)
    assert screen.style_of("job failed") == {"31"}
    assert screen.style_of("low memory") == {"33"}


def test_the_beginning_of_a_request_id_in_the_columns_finds_the_request(copy: Path) -> None:
    logs_engine(copy)
    argv = [str(copy / "scripts/logs.sh"), "--request", REQUEST[:8]]
    with on_terminal(argv, env=variables(copy)) as session:
        lines = shown(session).text()
    assert [line.split()[1] for line in lines[1:3]] == ["api-green", "worker-blue"]
    assert lines[3].startswith("live: ")


@pytest.mark.parametrize("way", ["pipe", "NO_COLOR"])
def test_logs_in_a_pipe_are_as_the_services_wrote_them(copy: Path, way: str) -> None:
    logs_engine(copy)
    argv = [str(copy / "scripts/logs.sh")]
    if way == "pipe":
        text = subprocess.run(argv, env=variables(copy), capture_output=True, text=True, check=True)
        written = text.stdout
    else:
        with on_terminal(argv, env=variables(copy, NO_COLOR="1")) as session:
            assert session.finish() == 0
            written = session.written.replace("\r\n", "\n")
    expected = [re.sub(r" [^ ]+Z ", " ", line, count=1).replace("\x1b[2J", "") for line in LOGS]
    assert written.split("\n")[: len(LOGS)] == expected
    assert json.loads(expected[2].partition("| ")[2])["message"] == LONG


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_script_that_is_stopped_ends_its_step_and_names_the_log(
    copy: Path, tmp_path: Path, number: signal.Signals
) -> None:
    hanging = copy / "hanging"
    install_engine(copy, f"[ -e {hanging} ] && exit 1\ntouch {hanging}\nexec sleep 60\n")
    argv = [str(copy / "scripts/upgrade-postgres.sh")]
    with on_terminal(argv, env=variables(copy)) as session:
        deadline = time.monotonic() + 30
        while not hanging.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        session.read_until(lambda: "..\x1b[0m  check" in session.written, "step")
        session.process.send_signal(number)
        lines = shown(session, code=130).text()
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert re.fullmatch(r"!!  check +\d\.\d s  stopped", lines[0])
    assert lines[1] == f"error: stopped by {name}"
    (log,) = (tmp_path / "state/attempts").iterdir()
    assert f"error: stopped by {name}" in log.read_text(encoding="utf-8")


def test_an_error_names_the_log_and_fits(copy: Path, tmp_path: Path) -> None:
    install_engine(copy, "echo 'cannot reach the engine' >&2\nexit 1\n")
    argv = [str(copy / "scripts/upgrade-postgres.sh")]
    with on_terminal(argv, columns=60, env=variables(copy)) as session:
        screen = shown(session, code=1)
    lines = screen.text()
    (log,) = (tmp_path / "state/attempts").iterdir()
    assert log.name.endswith("-upgrade-postgres.log")
    assert f"HINT:everycommandasrun:{log}" in re.sub(r"\s", "", "".join(lines))
    assert (screen.style_of("error:"), screen.style_of("HINT:")) == ({"31"}, {"33"})
    assert screen.style_of("RUNBOOK:") == {"36"}


def test_a_dry_run_prints_plain_lines_and_keeps_no_log(copy: Path, tmp_path: Path) -> None:
    argv = [str(copy / "scripts/up.sh"), "--dry-run"]
    with on_terminal(argv, env=variables(copy)) as session:
        session.finish()
    assert "\x1b" not in session.written.partition("error:")[0]
    assert "==> engine" in session.written
    assert not (tmp_path / "state/attempts").exists()
