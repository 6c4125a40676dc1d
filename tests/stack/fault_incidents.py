"""Injects the runbook's incidents of Postgres, Redis, a quota and a clock."""

import json
import os
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from api.requests.limits import Claim, RuleName
from tests.stack.faults import fail_one_fsync, status, take_all_connections
from tests.stack.harness import Stack, wait_until


def hang(stack: Stack, service: str) -> None:
    """Freeze a container's processes: connections are accepted, requests are never answered."""
    first = stack.host_pid(service)
    children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
    for pid in (first, *map(int, children)):
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not stack.is_serving(), 30, f"the stack is not ready without {service}")


def hanging_postgres(stack: Stack) -> None:
    """A Postgres that accepts connections and never answers."""
    hang(stack, "postgres")


def hanging_redis(stack: Stack) -> None:
    """A Redis that accepts connections and never answers."""
    hang(stack, "redis")


def a_program_that_takes_all_connections(stack: Stack) -> None:
    """A program that opens every connection that Postgres allows the application."""
    taker = take_all_connections(stack)
    stack.run("docker", "kill", "--signal", "USR1", taker)
    wait_until(lambda: "held" in stack.run("docker", "logs", taker).stdout, 30, "all are taken")
    wait_until(lambda: status(stack, "/readyz")[0] == 503, 30, "the API has no connection")


def full_redis(stack: Stack) -> None:
    """A Redis that refuses writes first, and new connections later."""
    stack.redis("config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1")
    assert "OOM" in stack.redis("set", "a", "b")
    stack.compose("stop", "redis")


def change_redis_file(stack: Stack, script: str) -> None:
    """Run a script in the folder of Redis' append-only file, while Redis is stopped."""
    stack.compose("stop", "redis")
    folder = "cd /data/appendonlydir; file=$(ls *.incr.aof | tail -n 1); "
    run = ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", "redis", "-ec"]
    stack.compose(*run, folder + script)


def corrupted_redis(stack: Stack) -> None:
    """Damage a block in the middle of Redis' file, so that Redis does not start."""
    # 200 keys make 10 kB: the damaged block (512 bytes, 5 kB before the end) lies between
    # complete commands.
    keys = "for i = 1, 200 do redis.call('set', 'drill:' .. i, i, 'ex', 600) end"
    stack.redis("eval", keys, "0")
    place = "seek=$(($(stat --format=%s $file) - 5000))"
    change_redis_file(
        stack,
        f"head -c 512 /dev/zero | tr '\\0' x | dd of=$file bs=1 {place} conv=notrunc status=none",
    )
    stack.compose("start", "redis")
    wait_until(lambda: stack.inspect("redis")["RestartCount"] > 1, 30, "Redis refuses to start")
    assert "Bad file format" in stack.compose("logs", "--no-color", "--tail", "20", "redis")


def asked_for_items(stack: Stack) -> int:
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        return client.get("/v1/items").status_code


def used_up_quota(stack: Stack) -> None:
    """A user who has used up a quota."""
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}) as client:
        user = client.get("/v1/users/me").json()["id"]
    far_ahead = str(10**17)  # microseconds
    stack.redis("set", Claim(RuleName.USER, user).key, far_ahead)
    assert asked_for_items(stack) == 429


def clock_set_back(stack: Stack) -> None:
    """A ledger whose last deploy was recorded while the clock was an hour ahead."""
    ledger = stack.root / "state/ledger.jsonl"
    entry = stack.ledger()[-1] | {
        "at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    }
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    # An hour, less the seconds between writing the entry and running status.sh.
    assert re.search(
        r" (3600|35\d\d) s ahead", stack.run("./scripts/status.sh", check=False).stdout
    )


def failing_disk(stack: Stack) -> None:
    """Make one fdatasync of Postgres' log fail."""
    assert "(INJECTED)" in fail_one_fsync(stack, 15)


FAULT_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "502-and-504": hanging_postgres,
    "too-many-database-connections": a_program_that_takes_all_connections,
    "redis-down-or-full": full_redis,
    "redis-file-corrupted": corrupted_redis,
    "cache-unavailable-under-load": hanging_redis,
    "a-burst-of-429": used_up_quota,
    "clock-wrong": clock_set_back,
    "disk-errors-under-postgres": failing_disk,
}
