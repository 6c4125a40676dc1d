"""Redis' row in `status.sh`: whether Redis has free memory and writes its file."""

from stack.commands import engine
from stack.runner import Runner

MB = 1024**2  # the unit of redis.conf
# Chosen: above this Redis soon evicts keys, first cache entries, then sessions.
PERCENT_HIGH = 90


def row(runner: Runner) -> tuple[bool, str, str]:
    """Return whether Redis is ok, the row's name, and the used memory with its limit."""
    # 5 s: a Redis that hangs must not delay a person who looks for the reason.
    words = ["timeout", "5", "/etc/slipway/cli.sh", "info"]
    info = runner.read(engine.exec_in("redis", *words, may_fail=True))
    facts = dict(line.split(":", 1) for line in info.out.splitlines() if ":" in line)
    if "used_memory" not in facts:
        error = (info.err + info.out).strip().splitlines() or ["no answer"]
        return False, "redis data", error[-1]
    used, most = int(facts["used_memory"]), int(facts["maxmemory"])
    written = facts["aof_last_write_status"], facts["aof_last_bgrewrite_status"]
    is_kept = facts["aof_enabled"] == "1" and written == ("ok", "ok")
    file = "written to its file" if is_kept else "not written to its file: ./scripts/logs.sh redis"
    memory = (
        f"{used / MB:.1f} of {most / MB:.1f} MB" if most else f"{used / MB:.1f} MB without a limit"
    )
    text = f"{memory}, {facts['evicted_keys']} keys evicted, {file}"
    return is_kept and 100 * used < PERCENT_HIGH * most, "redis data", text
