"""The counter's process: `python3 -m counter [FOLDER]`. Receives, counts and answers until SIGTERM.

nginx never waits for it: without a counter, nginx serves and the counts are missing.
"""

import asyncio
import signal
import socket
import sys
from pathlib import Path

from counter import answers, logs, sockets
from counter.counts import Counts
from counter.datagrams import MOST_BYTES

# Datagrams per turn. Chosen: about 5 ms of work; between two turns, the loop answers queries and
# handles a signal.
MOST_AT_ONCE = 1000


async def run(folder: Path) -> None:
    """Serve until a signal."""
    loop, ending, counts = asyncio.get_running_loop(), asyncio.Event(), Counts()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    requests = sockets.bind(folder, sockets.REQUESTS, socket.SOCK_DGRAM)

    def receive() -> None:
        for datagram in sockets.receive_waiting(requests, MOST_AT_ONCE, MOST_BYTES):
            counts.add(datagram)

    loop.add_reader(requests, receive)
    listener = sockets.bind(folder, sockets.ANSWERS, socket.SOCK_STREAM)
    server = await asyncio.start_unix_server(answers.handler(counts), sock=listener)
    logs.write(f"counts the requests of nginx in {folder}", action="counter_started")
    await ending.wait()
    server.close()
    loop.remove_reader(requests)
    logs.write(f"stopped after {counts.received} datagrams", action="counter_stopped")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]) if len(sys.argv) > 1 else sockets.FOLDER))
