"""Runs the scripts as a person types them: usage, exit codes, errors on standard error."""

import io
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stack import __main__
from stack.config import environment
from stack.runner import Result

from tests.scripts.conftest import ROOT, Typed
from tests.scripts.recording import RecordingRunner
from tests.scripts.screen import heed_signals

STORIES = __main__.commands()
COMMANDS = sorted(set(STORIES) - {"retire"})
REQUIRED = {
    "migration": ["pre", "add_isbn"],
    "drill": ["restore"],
    "export-secrets": ["file"],
    "restore": ["--list"],
}
# Other ways of a command.
MORE = [("deploy", "--plan"), ("jobs", "retry", "1"), ("jobs", "discard", "1")]
NEW_STORY = """'''Counts what it is given.'''

COMMAND = "count"
HELP = "count the words"


def add_arguments(parser):
    parser.add_argument("words", nargs="*")


def main(runner, arguments, root):
    runner.say(f"{len(arguments.words)} words in {root.name}")
    return 1
"""


def script(root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(root / f"scripts/{name}.sh"), *arguments]
    return subprocess.run(
        argv, env=alone(root), capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )


def alone(root: Path) -> dict[str, str]:
    """Return an environment without an engine; the checkout's `bin/` is first in PATH."""
    path = f"{root / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(root), "DOCKER_HOST": "unix:///nonexistent/engine.sock"}


@pytest.fixture
def copy(checkout: Path) -> Path:
    """Return a checkout with the scripts, on a machine whose engine cannot be reached."""
    shutil.copytree(
        ROOT / "scripts", checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (checkout / ".env").read_text(encoding="utf-8")
    # No process listens on this port, even if the machine runs a stack.
    (checkout / ".env").write_text(
        environment.with_values(text, {"HTTPS_PORT": "1"}), encoding="utf-8"
    )
    return checkout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_given_from_any_directory(name: str) -> None:
    result = script(ROOT, name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: scripts/{name}.sh")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error(name: str) -> None:
    result = script(ROOT, name, *REQUIRED.get(name, []), "--frobnicate")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"usage: scripts/{name}.sh" in result.stderr
    assert "--frobnicate" in result.stderr


@pytest.mark.parametrize("arguments", [("--lines", "many"), ("--lines", "-5"), ("--lines", "0")])
def test_a_number_of_lines_that_makes_no_sense_is_a_usage_error(
    copy: Path, arguments: tuple[str, str]
) -> None:
    assert script(copy, "logs", *arguments).returncode == 2


def test_every_command_has_its_script_but_the_one_that_the_scripts_start_themselves() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.sh")}
    assert set(COMMANDS) == scripts - {"test", "bench"}


def test_a_new_command_is_one_file_and_its_shell(copy: Path) -> None:
    (copy / "scripts/stack/stories/count.py").write_text(NEW_STORY, encoding="utf-8")
    shell = (copy / "scripts/status.sh").read_text(encoding="utf-8").replace("status", "count")
    (copy / "scripts/count.sh").write_text(shell, encoding="utf-8")
    (copy / "scripts/count.sh").chmod(0o755)
    result = script(copy, "count", "one", "two")
    assert (result.returncode, result.stdout, result.stderr) == (1, f"2 words in {copy.name}\n", "")
    assert script(copy, "count", "--help").stdout.startswith("usage: scripts/count.sh")


def test_no_command_is_a_usage_error() -> None:
    argv = ["python3", "-m", "stack"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    result = subprocess.run(
        argv, env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert "usage: scripts" in result.stderr


@pytest.mark.parametrize(
    "command",
    [("status",), ("status", "--history"), ("logs",), ("deploy", "--plan"), ("rollback",)],
)
def test_without_env_a_script_fails_with_observation_hint_runbook_and_what_serves(
    copy: Path, command: tuple[str, ...]
) -> None:
    (copy / ".env").unlink()
    result = script(copy, *command)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: there is no .env here",
        "HINT: ./scripts/up.sh creates it",
        "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration",
        "live: unknown, because .env cannot be read",
    ]


def test_a_misspelt_key_is_refused_and_its_value_is_not_printed(copy: Path) -> None:
    with (copy / ".env").open("a", encoding="utf-8") as file:
        file.write("DATABASE_PASWORD=hunter2\n")
    result = script(copy, "check-config")
    assert result.returncode == 1
    assert "DATABASE_PASWORD" in result.stderr
    warned = script(copy, "status")
    assert "warning: .env has keys that nothing here reads: DATABASE_PASWORD" in warned.stdout
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("command", [(name, *REQUIRED.get(name, [])) for name in COMMANDS] + MORE)
def test_each_command_lists_once_the_keys_that_the_shell_overrides(
    runner: RecordingRunner,
    typed: Typed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    """Most commands fail afterwards, because nothing here answers."""
    if command[0] == "export-secrets":
        Path("words").write_text("a passphrase of some words\n", encoding="utf-8")
        command += ("--passphrase-file", "words")
    for key, value in {"LOG_LEVEL": "DEBUG", "READY_SECONDS": "61"}.items():
        monkeypatch.setenv(key, value)
    runner.reply("docker compose ps", Result(0))
    typed(*command)
    printed = [*runner.said, *capsys.readouterr().err.splitlines()]
    line = "from the environment, not from .env: LOG_LEVEL, READY_SECONDS"
    assert [text.strip() for text in printed if "not from .env" in text] == [line]


def test_without_an_engine_the_status_is_shown_and_is_not_well(copy: Path) -> None:
    result = script(copy, "status")
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (1, "")
    assert lines[0].startswith("!!  live")
    assert lines[-1].startswith("live: nothing answers at https://localhost:")
    assert lines[-1].endswith("running: not known, because the engine does not answer")


def test_a_request_id_that_is_none_is_a_usage_error(copy: Path) -> None:
    result = script(copy, "logs", "--request", "a;b")
    assert result.returncode == 2
    assert "is not a request id" in result.stderr


def program(root: Path, name: str, text: str) -> Path:
    """Put a program into `bin/`, which is in PATH before the machine's own programs."""
    file = root / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    file.chmod(0o755)
    return file


def started(argv: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """Start a script that heeds its signals."""
    return subprocess.Popen(
        argv,
        env=env,
        stdout=-1,
        stderr=-1,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,  # noqa: PLW1509
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_script_that_is_stopped_ends_what_it_runs_and_says_what_is_live(
    copy: Path, number: signal.Signals
) -> None:
    # The first command hangs; the commands after the signal, which read the live slot, do not.
    engine = program(
        copy,
        "docker",
        '[ -e "$0.pid" ] && exit 1\necho $$ >"$0.new"\nmv "$0.new" "$0.pid"\nexec sleep 60\n',
    )
    hanging = engine.with_name("docker.pid")
    argv = [str(copy / "scripts/status.sh")]
    with started(argv, alone(copy)) as running:
        deadline = time.monotonic() + 30
        while not hanging.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(number)
        out, errors = running.communicate(timeout=30)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert (running.returncode, out) == (130, ""), errors
    assert errors.splitlines() == [
        f"error: stopped by {name}",
        "live: nothing answers at https://localhost:1 ([Errno 111] Connection refused); "
        "running: not known, because the engine does not answer",
    ]
    assert not Path("/proc", hanging.read_text(encoding="ascii").strip()).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    copy: Path, number: signal.Signals
) -> None:
    """`nohup` ignores the hang-up for the script, which then goes on without its terminal."""
    engine = program(
        copy,
        "docker",
        'echo $$ >"$0.new"\nmv "$0.new" "$0.pid"\nwhile [ ! -e "$0.go" ]; do sleep 0.1; done\n'
        "echo 'no engine' >&2\nexit 1\n",
    )

    def ignore() -> None:
        signal.signal(number, signal.SIG_IGN)

    argv = [str(copy / "scripts/status.sh")]
    with subprocess.Popen(
        argv,
        env=alone(copy),
        stdout=-1,
        stderr=-1,
        text=True,
        start_new_session=True,
        preexec_fn=ignore,  # noqa: PLW1509
    ) as running:
        deadline = time.monotonic() + 30
        try:
            while not engine.with_name("docker.pid").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            running.send_signal(number)
        finally:
            engine.with_name("docker.go").touch()
        out, errors = running.communicate(timeout=30)
    assert running.returncode == 1, errors
    assert "stopped by" not in errors
    assert out.splitlines()[-1].startswith("live: nothing answers at")


@pytest.mark.parametrize("name", ["status", "logs"])
def test_a_reader_that_goes_away_is_no_traceback(copy: Path, name: str) -> None:
    if name == "logs":
        program(copy, "docker", "echo a line\n")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        argv = [str(copy / f"scripts/{name}.sh")]
        result = subprocess.run(
            argv, env=alone(copy), stdout=writer, stderr=-1, text=True, timeout=60, check=False
        )
    finally:
        os.close(writer)
    assert "Traceback" not in result.stderr
    assert result.returncode in {0, 1}, "the closed pipe changed the exit code"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError(5, "Input/output error", "/srv/state"), "error: Input/output error: /srv/state"),
        (
            PermissionError(13, "Permission denied", "/srv/.env"),
            "error: this user may not open /srv/.env",
        ),
    ],
)
def test_a_fault_of_the_machine_is_an_error_with_a_way_on_and_what_is_live(
    runner: RecordingRunner,
    typed: Typed,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    message: str,
) -> None:
    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr("stack.stories.status.run", fail)
    monkeypatch.setattr("sys.stderr", errors := io.StringIO())
    runner.reply("docker compose ps", Result(0))
    assert typed("status") == 1
    first, *way, live = errors.getvalue().splitlines()
    assert first == message
    assert any(line.startswith("HINT: ") for line in way)
    assert live.startswith("live: nothing answers")
