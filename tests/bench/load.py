"""Sends one burst of load: wrk with keep-alive connections to a container's address."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Below nginx's limit of connections per client (64). Measured: more than 16 add no requests.
CONNECTIONS = 32
SCRIPT = Path(__file__).with_name("load.lua")


class LoadFailed(Exception):
    """A burst without a result: wrk could not run it, or not every answer was 200."""


@dataclass(frozen=True)
class Target:
    """A place to read the item from: a URL with a host name, and a container's address."""

    name: str
    url: str
    address: str


@dataclass(frozen=True)
class Count:
    """The result of one burst."""

    per_second: float
    p50_ms: float
    p99_ms: float


def burst(target: Target, token: str, seconds: int) -> Count:
    """Load a target for some seconds; an answer other than 200 counts as an error."""
    done = subprocess.run(
        [
            *(
                "wrk",
                "--threads",
                "1",
                "--connections",
                str(CONNECTIONS),
                "--duration",
                f"{seconds}s",
            ),
            *(
                "--timeout",
                "10s",
                "--script",
                str(SCRIPT),
                "--header",
                f"Authorization: Bearer {token}",
                target.url,
            ),
        ],
        env={**os.environ, "BENCH_ADDRESS": target.address},
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(
            f"wrk ended with {done.returncode} on {target.name}: {done.stderr or done.stdout}"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    if found["failed"] or not found["requests"]:
        raise LoadFailed(f"{target.name}: {found['failed']} of {found['requests']} requests failed")
    return Count(found["requests"] / found["seconds"], found["p50_ms"], found["p99_ms"])
