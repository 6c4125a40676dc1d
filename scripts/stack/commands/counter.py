"""Builds the query to the counter; runs nothing."""

from stack.commands import engine
from stack.commands.command import Command

# Partner: stub_status in nginx/conf.d/80-probes.conf
STATUS = "curl --fail --silent --show-error --max-time 2 http://127.0.0.1:8081/status"
# Partner: ANSWERS in counter/sockets.py
# Partner: healthcheck in compose.yaml
COUNTS = (
    "curl --fail-with-body --silent --show-error --max-time 4"
    " --unix-socket /run/counter/answers.sock --data-binary @- 'http://counter/counts{query}'"
)

# The exit code in a container of nginx that is older than the counter and lacks its volume.
TOO_OLD = 3


def read_counts(query: str = "") -> Command:
    """Ask the counter from nginx' container, and report nginx' own number of requests to it.

    The exit code is that of the second curl, which also fails if the first prints nothing.
    """
    is_old = f"[ -d /run/counter ] || exit {TOO_OLD}"
    words = f"{is_old}; {STATUS} | {COUNTS.format(query=f'?{query}' if query else '')}"
    return engine.exec_in("nginx", "sh", "-c", words, may_fail=True)


def begin(slot: str, seconds: float) -> Command:
    """Begin a period in which the counter compares the clients of a slot."""
    return read_counts(f"begin={seconds:.0f}&slot={slot}")


def read_period(name: str, *, is_last: bool = False) -> Command:
    """Ask for the counts of a period; the last query ends it."""
    return read_counts(f"period={name}" + ("&end=" if is_last else ""))
