"""Looks at a service's processes from the host."""

from pathlib import Path

from tests.stack.harness import Stack


def api_processes(stack: Stack) -> set[int]:
    """Return the ids of the API's processes: one that was killed or crashed is replaced by another."""
    master = stack.host_pid("api-blue")
    return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()}
