"""Lists a service's processes from the host."""

from pathlib import Path

from tests.stack.harness import Stack


def children(pid: int) -> set[int]:
    """Return the ids of a process' children."""
    return {
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    }


def api_processes(stack: Stack) -> set[int]:
    """Return the process ids of the API's workers; a replaced worker has a new id."""
    return children(stack.host_pid("api-blue"))
