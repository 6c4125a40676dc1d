"""Receives webhooks on this host, with or without TLS, and checks their signatures."""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Answer = Callable[["Received"], int]
TOLERANCE_SECONDS = 300  # the specification's example; an older request may be a replay


@dataclass(frozen=True)
class Received:
    """A received request, and the status that the receiver returned."""

    headers: dict[str, str]
    body: bytes
    answer: int = 0

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def item(self) -> str:
        return str(self.event["data"]["id"])

    def is_signed_by(self, secret: str) -> bool:
        """Whether the signature is valid by the Standard Webhooks specification."""
        if abs(time.time() - int(self.headers["webhook-timestamp"])) > TOLERANCE_SECONDS:
            return False
        prefix, _, encoded = secret.partition("_")
        signed = ".".join((self.id, self.headers["webhook-timestamp"], self.body.decode()))
        expected = hmac.new(base64.b64decode(encoded), signed.encode(), hashlib.sha256).digest()
        given = [part.split(",", 1) for part in self.headers["webhook-signature"].split(" ")]
        return prefix == "whsec" and any(
            version == "v1" and hmac.compare_digest(base64.b64decode(text), expected)
            for version, text in given
        )


class Receiver:
    """Keeps every request; `answer` returns the status for a request."""

    def __init__(self, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answer: Answer = lambda _: 204
        self.body = b""
        self._server = http.server.ThreadingHTTPServer((address, port), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http{'s' if tls else ''}://{address}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def delivered(self, path: str = "") -> list[Received]:
        """Return the requests that got a 2xx answer, in order, for paths that end with `path`."""
        return [
            one
            for one in self.received
            if 200 <= one.answer < 300 and one.headers[":path"].endswith(path)
        ]

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()} | {
                    ":path": self.path
                }
                status = receiver.answer(Received(headers, body))
                receiver.received.append(Received(headers, body, status))
                self.send_response(status)
                if status in {301, 302, 307, 308}:
                    self.send_header("Location", f"{receiver.url}/redirected")
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Log nothing: `received` has every request."""

        return Handler
