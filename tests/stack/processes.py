"""Looks at a service's processes from the host."""

from pathlib import Path

from tests.stack.harness import Stack


def children(pid: int) -> set[int]:
    """Return the ids of a process' children."""
    return {
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    }


def api_processes(stack: Stack) -> set[int]:
    """Return the ids of the API's processes: one that was killed or crashed is replaced by
    another."""
    return children(stack.host_pid("api-blue"))
