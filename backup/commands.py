"""The one place where the backup service runs programs: Postgres' and pgBackRest's; it decides nothing."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LAST_LINES = 12
TIMED_OUT = 124
# The longest that a backup or a restore of a large database takes; above it the program hangs.
FOLLOW_SECONDS = 24 * 3600.0
# In the answer of an S3 server, which pgBackRest repeats over forty lines: why it refused.
REFUSAL = re.compile(r"<Code>([^<]+)</Code>\s*<Message>([^<]+)</Message>")


@dataclass
class Failed(Exception):
    """What went wrong, with values, in lower case; and what can be done about it, one sentence each."""

    observation: str
    hints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.observation


@dataclass(frozen=True)
class Done:
    """What a program did: its exit code, its output and how long it took in seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def reason(self) -> str:
        """The lines that say why it failed: those marked so, or the last ones."""
        lines = (self.out + "\n" + self.err).strip().splitlines()
        marked = [
            line.strip().rstrip(":")
            for line in lines
            if "ERROR" in line or "FATAL" in line or "error:" in line
        ]
        marked += refusals(self.out + self.err)
        return "; ".join((marked or lines)[-LAST_LINES:]) or f"exit {self.code}, no output"


def refusals(text: str) -> list[str]:
    """Return what an S3 server said of refusals, each once: `SignatureDoesNotMatch: ...`."""
    return [": ".join(words) for words in dict.fromkeys(REFUSAL.findall(text))]


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> Done:
    """Run a program to its end; after `timeout` seconds it is killed and the code is 124."""
    started = time.monotonic()
    try:
        done = subprocess.run(
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
        return Done(TIMED_OUT, "", f"{argv[0]} was stopped after {timeout:.0f} s", timeout)
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def follow(argv: Sequence[str], say: Callable[[str], None]) -> Done:
    """Run a program and pass each line on as it comes, standard error among them."""
    started = time.monotonic()
    lines = []
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
            say(line.rstrip())
        limit.cancel()
    return Done(process.returncode, "".join(lines), "", time.monotonic() - started)
