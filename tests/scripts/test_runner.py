"""Tests the real runner with real programs, real files and a real TLS server on loopback."""

import http.server
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import pytest
from stack.commands.command import Command, Options
from stack.display import Display
from stack.dry_runner import DryRunner
from stack.failure import Failure
from stack.https import Question
from stack.runner import EVIDENCE_LINES, RUN_MARK, RealRunner

PYTHON = [sys.executable, "-c"]


def python(code: str, **options: Unpack[Options]) -> Command:
    return Command([*PYTHON, code], **options)


@pytest.mark.parametrize("options", [{"answers": (0, 7)}, {"may_fail": True}])
def test_a_read_that_ends_with_a_code_that_is_an_answer_is_a_result(options: Options) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    result = RealRunner().read(python(code, **options))
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")
    assert result.seconds > 0


@pytest.mark.parametrize("answers", [(0,), (0, 1)])
def test_a_read_that_ends_with_any_other_code_raises(answers: tuple[int, ...]) -> None:
    with pytest.raises(Failure, match="exited with 7") as raised:
        RealRunner().read(python("import sys; print('why'); sys.exit(7)", answers=answers))
    assert raised.value.evidence.strip() == "why"


def test_a_program_that_is_not_there_is_a_result() -> None:
    result = RealRunner().read(Command(["no-such-program"], answers=(0, 127)))
    assert (result.code, result.err) == (127, "no-such-program is not installed")


def test_a_program_that_may_not_be_run_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "program").touch(0o644)
    result = RealRunner().read(Command([str(tmp_path / "program")], may_fail=True))
    assert (result.code, result.err) == (126, f"{tmp_path}/program may not be run by this user")


def test_a_run_that_fails_shows_the_command_and_its_last_lines() -> None:
    code = (
        "import sys; [print(n) for n in range(100)]; "
        "print('the reason', file=sys.stderr); sys.exit(3)"
    )
    with pytest.raises(Failure, match="exited with 3 after") as raised:
        RealRunner().run(python(code))
    evidence = raised.value.evidence.splitlines()
    assert evidence[-1] == "the reason"
    assert len(evidence) == EVIDENCE_LINES
    assert "range(100)" in str(raised.value)


def test_a_run_whose_failure_is_expected_is_a_result() -> None:
    assert RealRunner().run(python("raise SystemExit(3)", may_fail=True)).code == 3


def test_a_run_is_printed_as_it_can_be_typed(capfd: pytest.CaptureFixture[str]) -> None:
    RealRunner().run(Command(["echo", "two words"], env={"A": "b c"}))
    assert capfd.readouterr().out == "    $ A='b c' echo 'two words'\n"


def test_codes_for_a_terminal_are_left_out() -> None:
    assert (
        RealRunner().read(Command(["printf", r"\033[1A\033[2K\033[32mdone\033[0m"])).out == "done"
    )


def test_a_run_gets_its_input_and_its_variables() -> None:
    code = "import os, sys; print(sys.stdin.read() + os.environ['A'] + os.environ['PATH'])"
    assert (
        RealRunner().run(python(code, stdin="in-", env={"A": "a-"})).out
        == f"in-a-{os.environ['PATH']}\n"
    )
    assert RealRunner().read(Command(["cat"], stdin="in")).out == "in"


def test_input_and_output_are_whole_however_long_the_command_takes() -> None:
    """The runner reads output as it arrives; it must neither lose output nor send input twice."""
    code = (
        "import sys, time\n"
        "text = sys.stdin.read()\n"
        "for place in range(0, len(text), 200_000):\n"
        "    part = text[place : place + 200_000]\n"
        "    print(part, end='', flush=True)\n"
        "    print(part, end='', flush=True, file=sys.stderr)\n"
        "    time.sleep(0.3)\n"
    )
    text = "".join(f"line {number} ü\n" for number in range(60_000))
    result = RealRunner().run(Command([*PYTHON, code], stdin=text))
    assert (result.out, result.err) == (text, text)


@pytest.mark.parametrize("size", [0, 60_000, 300_000])
def test_a_program_that_reads_late_gets_the_whole_input(size: int) -> None:
    """A pipe holds 64 KiB until its reader starts; gpg, for example, takes a second to start."""
    command = Command(["sh", "-c", "sleep 1; wc -c"], stdin="x" * size, timeout_seconds=20)
    assert RealRunner().run(command).out.strip() == str(size)


def test_a_program_that_reads_no_input_ends_as_it_ends() -> None:
    command = Command(["sh", "-c", "exit 3"], stdin="x" * 60_000, may_fail=True)
    assert RealRunner().run(command).code == 3


def test_the_last_line_of_each_stream_is_shown_as_it_comes() -> None:
    shown: list[str] = []

    class Watching(Display):
        @contextmanager
        def command(self, text: str) -> Iterator[Callable[[str], None]]:
            yield shown.append

    code = (
        "import sys, time\n"
        "for stream in (sys.stdout, sys.stderr, sys.stdout):\n"
        "    print('early\\n', stream.name, 'ü', file=stream, end='\\n\\n', flush=True)\n"
        "    time.sleep(0.9)\n"
    )
    RealRunner(Watching()).run(Command([*PYTHON, code]))
    assert shown == [" <stdout> ü", " <stderr> ü", " <stdout> ü"]


def test_every_command_carries_the_mark_of_the_process_that_started_it() -> None:
    code = f"import os; print(os.environ['{RUN_MARK}'])"
    assert (
        RealRunner().read(python(code)).out
        == RealRunner().run(python(code)).out
        == f"{os.getpid()}\n"
    )


def test_a_command_over_its_time_is_stopped_and_says_so() -> None:
    started = time.monotonic()
    result = RealRunner().read(Command(["sleep", "30"], timeout_seconds=0.3, may_fail=True))
    assert (result.code, result.err) == (124, "stopped after 0 s")
    assert time.monotonic() - started < 25, "the runner waited for the command"


def is_running(pid: int) -> bool:
    """Whether the process still runs; a zombie does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_a_stopped_command_had_started_is_stopped_too(tmp_path: Path) -> None:
    file, started = tmp_path / "pid", time.monotonic()
    # Within the time limit of 2 s the shell writes its file, even on a busy machine.
    script = f"sleep 60 & echo $! >{file}; wait"
    RealRunner().read(Command(["sh", "-c", script], timeout_seconds=2, may_fail=True))
    pid = int(file.read_text(encoding="ascii"))
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    survived = is_running(pid)
    if survived:
        os.kill(pid, 9)
    assert not survived
    assert time.monotonic() - started < 50  # the runner did not wait for `sleep 60`


def test_a_signal_that_comes_while_a_command_starts_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    # Needed if a shell has started the tests with `&`, because they then ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            RealRunner().read(Command(["sleep", "60"]))
    finally:
        signal.signal(signal.SIGINT, before)
    (pid,) = begun
    survived = is_running(pid)
    if survived:
        os.kill(pid, signal.SIGKILL)
    assert not survived


def test_a_started_program_outlives_its_session_and_writes_its_log(tmp_path: Path) -> None:
    log, session = tmp_path / "log", tmp_path / "session"
    code = (
        "import os; print('up', flush=True); "
        f"open({str(session)!r}, 'w').write(f'{{os.getsid(0)}} {{os.getpid()}}')"
    )
    RealRunner().start(python(code), log)
    deadline = time.monotonic() + 60
    while not (session.exists() and session.read_text(encoding="ascii")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    own, pid = session.read_text(encoding="ascii").split()
    assert own == pid != str(os.getsid(0))
    assert log.read_text(encoding="ascii") == "up\n"


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_text("old", encoding="utf-8")
    reader = file.open(encoding="utf-8")
    RealRunner().write(file, "new", mode)
    with reader:
        assert reader.read() == "old"  # an open file keeps the old content
    assert file.read_text(encoding="utf-8") == "new"
    assert file.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        RealRunner().write(file, "new \ud800", 0o600)
    assert file.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("umask", [0o077, 0o000])
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700])
def test_a_directory_has_its_mode_whatever_the_umask_and_one_that_is_there_keeps_its_own(
    tmp_path: Path, umask: int, mode: int
) -> None:
    folder, before = tmp_path / "above/made", os.umask(umask)
    try:
        RealRunner().make_directory(folder, mode)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == mode
    folder.chmod(0o711)
    RealRunner().make_directory(folder, mode)
    assert folder.stat().st_mode & 0o777 == 0o711


def test_lines_are_appended(tmp_path: Path) -> None:
    for line in ("one", "two"):
        RealRunner().append(tmp_path / "ledger", line)
    assert (tmp_path / "ledger").read_text(encoding="utf-8") == "one\ntwo\n"


def test_a_dry_run_reads_the_world_and_leaves_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runner, file = DryRunner(), tmp_path / "file"
    assert runner.read(Command(["echo", "real"])).out == "real\n"
    runner.run(Command(["touch", str(file)]))
    runner.start(Command(["touch", str(file)]), tmp_path / "log")
    runner.write(file, "x", 0o600)
    runner.append(file, "x")
    runner.make_directory(tmp_path / "made", 0o700)
    assert list(tmp_path.iterdir()) == []
    told = capfd.readouterr().out
    assert f"would run: touch {file}\n" in told
    assert f"would write: {file} (mode 0600, 1 bytes)\n" in told


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(self.path)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("X-Slipway-Release", "r-1")
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    chain, key = str(folder / "fullchain.pem"), str(folder / "privkey.pem")
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    argv += ["-days", "90", "-subj", "/CN=a.example", "-addext", "subjectAltName=DNS:a.example"]
    subprocess.run(
        [*argv, "-keyout", key, "-out", chain], check=True, capture_output=True, timeout=30
    )
    return Path(chain)


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("privkey.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_carries_its_headers_and_the_end_of_the_certificate(
    port: int, certificate: Path
) -> None:
    answer = RealRunner().ask(Question("a.example", port, "/livez", certificate))
    assert (answer.status, answer.body, answer.error) == (200, "/livez", "")
    assert answer.headers["X-Slipway-Release"] == "r-1"
    assert answer.headers["X-Host"] == f"a.example:{port}"
    end = ssl.cert_time_to_seconds(answer.expires)
    assert 89 * 86400 < end - time.time() <= 90 * 86400


def test_a_post_sends_its_body(port: int, certificate: Path) -> None:
    question = Question("a.example", port, "/v1/users", certificate, method="POST", body='{"a": 1}')
    assert RealRunner().ask(question).body == '{"a": 1}'


def test_a_certificate_of_another_name_is_refused(port: int, certificate: Path) -> None:
    answer = RealRunner().ask(Question("b.example", port, "/", certificate))
    assert answer.status == 0
    assert "b.example" in answer.error
    assert RealRunner().ask(Question("b.example", port, "/", None)).status == 200, "not verified"


def test_a_certificate_that_nobody_vouches_for_is_refused(port: int, tmp_path: Path) -> None:
    answer = RealRunner().ask(Question("a.example", port, "/", tmp_path / "absent.pem"))
    assert answer.status == 0
    assert "self-signed certificate" in answer.error


def test_a_certificate_file_that_cannot_be_read_is_an_answer_and_no_traceback(
    port: int, tmp_path: Path
) -> None:
    (tmp_path / "broken.pem").write_text("not a certificate", encoding="utf-8")
    answer = RealRunner().ask(Question("a.example", port, "/", tmp_path / "broken.pem"))
    assert answer.status == 0
    assert answer.error


def test_a_closed_port_is_an_answer(certificate: Path) -> None:
    answer = RealRunner().ask(Question("a.example", 1, "/", certificate))
    assert (answer.status, answer.expires) == (0, "")
    assert "refused" in answer.error


def test_a_command_runs_to_its_end_when_nobody_reads_on(tmp_path: Path) -> None:
    """A dropped connection in the middle of a deploy closes the output of the script."""
    made = tmp_path / "made"
    program = (
        "from stack.commands.command import Command; from stack.runner import RealRunner; "
        f"RealRunner().run(Command(['touch', {str(made)!r}]))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PYTHON, program],
            env={**os.environ, "PYTHONPATH": "scripts"},
            stdout=writer,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, made.exists()) == (0, True)
