"""The container's health check: asks /readyz through the slot's socket. Standard library only."""

import os
import socket
import sys

SLOTS_FOLDER = "/run/slots"
PROBE_SECONDS = 2.0  # above READY_SECONDS, below the compose file's health check timeout
REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(path: str, seconds: float = PROBE_SECONDS) -> tuple[int, str]:
    """Return the status and the body of /readyz."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(REQUEST)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("the answer is not HTTP")
    return int(words[1]), body.decode(errors="replace")


def main() -> int:
    """Print the status and the body; return 0 for 200, else 1."""
    path = f"{SLOTS_FOLDER}/{os.environ.get('SLIPWAY_SLOT', 'none')}.sock"
    try:
        status, body = ask(path)
    except OSError as error:
        sys.stdout.write(f"no answer through {path}: {error}\n")
        return 1
    sys.stdout.write(f"{status} {body}\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
