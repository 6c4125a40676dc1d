"""Redis' row in `status.sh`: whether it has room, and whether what it is told reaches its file; it only reads."""

from stack.commands import engine
from stack.runner import Runner

MB = 1024**2  # as redis.conf counts
PERCENT_HIGH = (
    90  # chosen: soon it evicts; a cache's entry first, and where there are none, a session
)


def row(runner: Runner) -> tuple[bool, str, str]:
    """Return whether Redis is well, the row's name, and its memory against its own limit."""
    # 5 s: one that hangs must not hold up who looks for the reason.
    asked = runner.read(
        engine.compose_argv(
            "exec", "--no-TTY", "redis", "timeout", "5", "/etc/slipway/cli.sh", "info"
        )
    )
    facts = dict(line.split(":", 1) for line in asked.out.splitlines() if ":" in line)
    if "used_memory" not in facts:
        seen = (asked.err + asked.out).strip().splitlines() or ["no answer"]
        return False, "redis data", seen[-1]
    used, most = int(facts["used_memory"]), int(facts["maxmemory"])
    written = facts["aof_last_write_status"], facts["aof_last_bgrewrite_status"]
    is_kept = facts["aof_enabled"] == "1" and written == ("ok", "ok")
    file = "written to its file" if is_kept else "not written to its file: ./scripts/logs.sh redis"
    memory = (
        f"{used / MB:.1f} of {most / MB:.1f} MB" if most else f"{used / MB:.1f} MB without a limit"
    )
    text = f"{memory}, {facts['evicted_keys']} keys evicted, {file}"
    return is_kept and 100 * used < PERCENT_HIGH * most, "redis data", text
