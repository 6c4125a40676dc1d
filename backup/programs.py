"""The one place where the backup service runs programs, Postgres' and pgBackRest's.

It decides nothing.
"""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LAST_LINES = 12
TIMED_OUT = 124
# Above the longest backup or restore of a large database: a slower program counts as hanging.
FOLLOW_SECONDS = 24 * 3600.0
# pgBackRest repeats an S3 server's answer over forty lines; these two elements are the reason.
REFUSAL = re.compile(r"<Code>([^<]+)</Code>\s*<Message>([^<]+)</Message>")


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a program, and its duration in seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def reason(self) -> str:
        """The lines that explain a failure: those marked as errors, else the last ones."""
        lines = (self.out + "\n" + self.err).strip().splitlines()
        marked = [
            line.strip().rstrip(":")
            for line in lines
            if "ERROR" in line or "FATAL" in line or "error:" in line
        ]
        marked += find_refusals(self.out + self.err)
        return "; ".join((marked or lines)[-LAST_LINES:]) or f"exit {self.code}, no output"


def find_refusals(text: str) -> list[str]:
    """Return an S3 server's reasons for a refusal, each once, as `SignatureDoesNotMatch: ...`."""
    return [": ".join(words) for words in dict.fromkeys(REFUSAL.findall(text))]


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> Result:
    """Run a program to its end; after `timeout` seconds, kill it and return the code 124."""
    started = time.monotonic()
    try:
        process = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=env,
        )
    except subprocess.TimeoutExpired:
        return Result(TIMED_OUT, "", f"{argv[0]} was stopped after {timeout:.0f} s", timeout)
    seconds = time.monotonic() - started
    return Result(process.returncode, process.stdout, process.stderr, seconds)


def follow(argv: Sequence[str], report: Callable[[str], None]) -> Result:
    """Run a program and pass on each line as it comes, standard error included."""
    started, lines = time.monotonic(), []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        limit = threading.Timer(FOLLOW_SECONDS, process.kill)
        limit.start()
        for line in process.stdout or ():
            lines.append(line)
            report(line.rstrip())
        limit.cancel()
    return Result(process.returncode, "".join(lines), "", time.monotonic() - started)
