"""Clients with different addresses: clients on the host all have the gateway's address.

They run in nginx' container, where each can take a loopback address.
"""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.stack.harness import Stack

# The watch asks for three (FEWEST_ADDRESSES in scripts/stack/rules/verdict.py).
ADDRESSES = "2 3 4"
PORT = 8443  # nginx' own, inside its container
# The loop ends by itself: otherwise a process left in the container would run for ever.
MOST_SECONDS = 240
LOOP = """
for address in {addresses}; do
    while [ ! -e /tmp/{name} ]; do
        curl --silent --output /dev/null --max-time 10 --insecure --interface 127.0.0.$address \
            --resolve {host}:{port}:127.0.0.1 --header 'Authorization: Bearer {token}' \
            'https://{host}:{port}{path}'
        sleep 0.2
    done &
done
wait
"""


@contextmanager
def crowd(stack: Stack, path: str, addresses: str = ADDRESSES) -> Iterator[None]:
    """Let several clients ask for a path, a few times a second, while the block runs."""
    name = f"crowd-{uuid.uuid4().hex[:8]}"
    facts = {"addresses": addresses, "host": stack.host, "port": PORT, "path": path}
    words = LOOP.format(name=name, token=stack.token(), **facts)
    argv = ["docker", "compose", "exec", "--no-TTY", "nginx", "timeout", str(MOST_SECONDS)]
    running = subprocess.Popen(
        [*argv, "sh", "-c", words],
        cwd=stack.root,
        env=stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        assert running.poll() is None, running.stderr and running.stderr.read()
    finally:
        stack.compose("exec", "--no-TTY", "nginx", "touch", f"/tmp/{name}")
        running.wait(60)
        stack.compose("exec", "--no-TTY", "nginx", "rm", f"/tmp/{name}")
