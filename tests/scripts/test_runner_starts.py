"""Programs that cannot start, and programs that leave processes, with the real runner."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.commands.command import Command
from stack.display import Display
from stack.failure import Failure
from stack.runner import RealRunner


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("echo hi\n", 126, "has no first line that names an interpreter: #!/bin/sh"),
        ("#!/no/such/shell\n", 127, "names an interpreter in its first line that is not installed"),
        ("#!/bin/sh\r\n", 127, "names an interpreter in its first line that is not installed"),
    ],
)
@pytest.mark.parametrize("way", ["read", "run", "run alone", "follow"])
def test_a_script_that_cannot_be_started_is_a_result(
    tmp_path: Path, text: str, code: int, reason: str, way: str
) -> None:
    script = tmp_path / "script"
    script.write_bytes(text.encode())
    script.chmod(0o755)
    command = Command([str(script)], may_fail=True, ends_alone=way == "run alone")
    result = getattr(RealRunner(), way.partition(" ")[0])(command)
    assert (result.code, result.err) == (code, f"{script} {reason}")


def test_a_program_for_later_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="exited with 127"):
        RealRunner().start(Command(["no-such-program"]), tmp_path / "log")


def test_a_command_that_ends_alone_does_not_wait_for_what_it_left_in_the_background() -> None:
    left = "echo out; echo err >&2; (sleep 5; echo late) & exit 7"
    started = time.monotonic()
    result = RealRunner().run(Command(["sh", "-c", left], may_fail=True, ends_alone=True))
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")
    assert time.monotonic() - started < 4


def test_a_command_that_ends_alone_is_stopped_after_its_time_and_shows_its_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    display = Display()

    @contextmanager
    def command(text: str) -> Iterator[Callable[[str], None]]:
        yield shown.append

    monkeypatch.setattr(display, "command", command)
    hangs = Command(
        ["sh", "-c", "echo begun; exec sleep 60"],
        may_fail=True,
        ends_alone=True,
        timeout_seconds=1,
    )
    assert RealRunner(display).run(hangs).code == 124
    assert set(shown) == {"begun"}
