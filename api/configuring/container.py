"""The container's limits, as the kernel's control groups state them, and the memory of a process.

It reads version 2 of the control groups, and version 1 on older hosts.
"""

import os
from pathlib import Path

ROLLUP = Path("/proc/self/smaps_rollup")


def _read_number(*paths: str) -> list[int] | None:
    """Return the numbers in the first file with a limit, or None without a limit."""
    for path in paths:
        if not Path(path).exists():
            continue
        words = Path(path).read_text(encoding="ascii").split()
        if words and words[0] not in {"max", "-1"}:
            return [int(word) for word in words]
    return None


def cpu_limit() -> float:
    """Return the container's CPU limit in cores, or the machine's cores if there is no limit.

    Version 2 has it in `cpu.max`, version 1 in `cpu.cfs_*`.
    """
    quota_and_period = _read_number("/sys/fs/cgroup/cpu.max")
    if quota_and_period:
        return quota_and_period[0] / quota_and_period[1]
    quota = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota[0] / period[0] if quota and period else float(os.cpu_count() or 1)


def memory_limit_bytes() -> int | None:
    """Return the container's memory limit in bytes, or None if there is none."""
    limit = _read_number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return limit[0] if limit else None


def used_bytes(rollup: Path = ROLLUP) -> int:
    """Return the memory of this process in bytes, or 0 if the kernel does not show it.

    Memory that several processes share is divided equally among them (the kernel's Pss).
    """
    try:
        lines = rollup.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
