"""The container's health check: asks the counter for /healthz. Standard library only."""

import socket
import sys

SOCKET = "/run/counter/answers.sock"  # counter/sockets.py
ANSWER_SECONDS = 2.0


def main() -> int:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(sys.argv[1] if len(sys.argv) > 1 else SOCKET)
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            with connection.makefile("rb") as answer:
                status = answer.readline()
                answer.read()  # without this, the counter writes into a closed connection
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0 if b" 200 " in status else 1


if __name__ == "__main__":
    sys.exit(main())
