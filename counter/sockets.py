"""Binds the two Unix sockets, also while nginx runs and sends to those of a former counter."""

import os
import socket
from pathlib import Path

# Partner: REQUESTS in nginx/snippets/count.conf; ANSWERS in scripts/stack/commands/counter.py
REQUESTS, ANSWERS = "requests.sock", "answers.sock"
MODE = 0o660  # nginx' group may send
FOLDER = Path("/run/counter")
BACKLOG = 16


def bind(folder: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    """Return a socket of this name; it replaces the socket that a former process left.

    The rename makes the new socket appear with its mode in one step, so that nginx always finds a
    socket of that name.
    """
    bound = socket.socket(socket.AF_UNIX, kind)
    bound.setblocking(False)
    new = folder / f".{name}.new"
    new.unlink(missing_ok=True)
    former = os.umask(0o777 & ~MODE)
    try:
        bound.bind(str(new))
    finally:
        os.umask(former)
    if kind == socket.SOCK_STREAM:
        bound.listen(BACKLOG)
    new.rename(folder / name)
    return bound


def receive_waiting(requests: socket.socket, most: int, most_bytes: int) -> list[bytes]:
    """Return the datagrams that wait in the queue, but at most `most` of them."""
    datagrams: list[bytes] = []
    try:
        while len(datagrams) < most:
            datagrams.append(requests.recv(most_bytes))
    except BlockingIOError:
        pass  # the queue is empty
    return datagrams
