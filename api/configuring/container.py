"""What the container may take, by the kernel's control groups (v2, and v1 on older hosts), and what a process takes."""

import os
from pathlib import Path

ROLLUP = Path("/proc/self/smaps_rollup")


def _read_number(*paths: str) -> list[int] | None:
    """Return the numbers of the first cgroup file that holds a limit, or None where there is no limit."""
    for path in paths:
        if not Path(path).exists():
            continue
        words = Path(path).read_text(encoding="ascii").split()
        if words and words[0] not in {"max", "-1"}:
            return [int(word) for word in words]
    return None


def cpu_limit() -> float:
    """Return the container's CPU limit in cores (cgroup v2 `cpu.max`, v1 `cpu.cfs_*`), else the machine's."""
    both = _read_number("/sys/fs/cgroup/cpu.max")
    if both:
        return both[0] / both[1]
    quota = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota[0] / period[0] if quota and period else float(os.cpu_count() or 1)


def memory_limit_bytes() -> int | None:
    """Return the container's memory limit in bytes, or None where there is none."""
    limit = _read_number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return limit[0] if limit else None


def used_bytes(rollup: Path = ROLLUP) -> int:
    """Return the memory of this process, what it shares with others divided among them; 0 where it is not told."""
    try:
        lines = rollup.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
