"""The container's health check: asks the service for /healthz. Standard library only."""

import socket
import sys

PORT = 9101  # backup/server.py listens on it
ANSWER_SECONDS = 2.0


def main() -> int:
    try:
        with socket.create_connection(("127.0.0.1", PORT), ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as answer:
                status = answer.readline()
                answer.read()  # without this, the server logs a broken connection
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0 if b" 200 " in status else 1


if __name__ == "__main__":
    sys.exit(main())
