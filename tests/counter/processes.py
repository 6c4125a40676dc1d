"""Starts the counter, and a real nginx with the product's own configuration in front of two slots.

nginx' files are copied, and paths and ports of the test replace those of the container.
"""

import http.client
import json
import os
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx") or ""
PORTS = (8443, 8080, 8081, 8083, 8084)
STATUS = (
    "Active connections: 1 \nserver accepts handled requests\n 9 9 {} \n"
    "Reading: 0 Writing: {} Waiting: 0 \n"
)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    """Wait for a condition; a busy machine may take some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def stub_status(requests: int, writing: int = 0) -> str:
    """Return nginx' status page after this many requests; some are still in progress."""
    return STATUS.format(requests, writing)


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("counter", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


@dataclass
class Counter:
    """The counter as a process, with its sockets in a folder."""

    folder: Path
    process: subprocess.Popen[str] | None = None

    @property
    def requests(self) -> Path:
        return self.folder / "requests.sock"

    @property
    def answers(self) -> Path:
        return self.folder / "answers.sock"

    def start(self) -> None:
        argv = [sys.executable, "-m", "counter", str(self.folder)]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert "counter_started" in self.process.stdout.readline()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(30)

    def ask(self, method: str, target: str, body: str = "") -> tuple[int, str]:
        connection = UnixConnection(self.answers)
        try:
            connection.request(method, target, body or None)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def counts(self, query: str = "", requests: int = 0) -> dict[str, Any]:
        status, text = self.ask("POST", f"/counts{query}", stub_status(requests))
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer

    def send(self, *datagrams: bytes) -> None:
        """Send datagrams as nginx does, but wait while the queue is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self.requests))
            for datagram in datagrams:
                sender.send(datagram)


def datagram(
    slot: str = "blue",
    status: int = 200,
    *,
    client: str = "192.0.2.1",
    path: str = "/v1/items",
    seconds: str = "0.010",
    upstream: str = "",
    watch: str = "",
    origin: str = "public",
    method: str = "GET",
) -> bytes:
    """Return the datagram that nginx sends; without a slot, nginx answered by itself."""
    upstream = upstream or (str(status) if slot else "-")
    fields = [origin, slot or "-", str(status), upstream, seconds if slot else "-", client]
    message = "\t".join([*fields, watch, method, path])
    return f"<190>Nov 29 12:25:31 nginx: {message}".encode()


class SlotServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A slot: answers with the status that `statuses` has for the path, or with 200.

    Without a status (0) it closes the connection and gives no answer.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, slot: str) -> None:
        self.slot, self.statuses = slot, dict[str, int]()
        self.delays = dict[str, float]()
        super().__init__(str(folder / f"{slot}.sock"), SlotHandler)

    def handle_error(self, *_: object) -> None:
        """Print nothing: in some tests the client closes the connection."""


class SlotHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlotServer

    def setup(self) -> None:
        super().setup()
        self.client_address = ("nginx", 0)

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delays.get(self.path, 0))
        status = self.server.statuses.get(self.path, 200)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("X-Slipway-Slot", self.server.slot)
        self.send_header("X-Slipway-Release", f"release-{self.server.slot}")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@dataclass
class Edge:
    """nginx with the product's configuration, two slots, and the sockets of a counter."""

    folder: Path
    ports: dict[int, int]
    slots: dict[str, SlotServer]
    rate_limit: int
    process: subprocess.Popen[bytes] | None = None
    errors: Path = field(default_factory=Path)

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "tls/fullchain.pem"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def connect(self, address: str = "127.0.0.1", host: str = "localhost") -> ssl.SSLSocket:
        """Return a TLS connection of a client with an address of its own."""
        target = ("127.0.0.1", self.ports[8443])
        plain = socket.create_connection(target, 10, source_address=(address, 0))
        return self.tls().wrap_socket(plain, server_hostname=host)

    def ask(self, path: str, address: str = "127.0.0.1", **headers: str) -> int:
        """Send one GET as a client; return the status."""
        lines = [f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items()]
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{''.join(lines)}"
        return self.send(f"{head}\r\n".encode(), address)

    def send(self, content: bytes, address: str = "127.0.0.1") -> int:
        """Send bytes over TLS; return the status, or 0 without an answer in two seconds."""
        with self.connect(address) as connection:
            connection.sendall(content)
            connection.settimeout(2)
            try:
                first = connection.makefile("rb").readline()
            except OSError:
                return 0
        return int(first.split()[1]) if first else 0

    def inside(self, path: str, port: int = 8081) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=20)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def make_live(self, slot: str) -> None:
        link = self.folder / "slots/live.sock"
        link.with_name("next").symlink_to(f"{slot}.sock")
        link.with_name("next").rename(link)

    def translate(self, words: str) -> str:
        """Return a shell command of nginx' container with the paths and ports of this test."""
        return _translated(words, self.folder, self.ports)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SLIPWAY_HOST": "localhost",
            "RATE_LIMIT_PER_SECOND": str(self.rate_limit),
            "HTTPS_PORT": str(self.ports[8443]),
        }

    def run(self, word: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point's `test` or `reload`."""
        argv = ["bash", str(self.folder / "nginx/entrypoint.sh"), word]
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )

    def start(self) -> None:
        self.errors = self.folder / "nginx.log"
        with self.errors.open("ab") as log:
            argv = ["bash", str(self.folder / "nginx/entrypoint.sh")]
            self.process = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log)
        wait_until(self.is_up, "nginx answers")

    def is_up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.errors.read_text()
        try:
            return self.inside("/healthz") == "ok\n"
        except OSError:
            return False

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)


def _translated(text: str, folder: Path, ports: dict[int, int]) -> str:
    places = {
        "/etc/slipway/current": folder / "nginx",
        "/run/slots": folder / "slots",
        "/run/tls": folder / "tls",
        "/run/counter": folder / "counter",
        "/tmp/nginx": folder / "rendered",
    }
    for path, place in places.items():
        text = text.replace(path, str(place))
    return re.sub(r"\b(8443|8080|808[134])\b", lambda match: str(ports[int(match[1])]), text)


def _copy_configuration(folder: Path, ports: dict[int, int]) -> None:
    about = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    version = [int(number) for number in re.findall(r"\d+", about)[:3]]
    for path in (ROOT / "nginx").rglob("*"):
        copy = folder / "nginx" / path.relative_to(ROOT / "nginx")
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        text = _translated(path.read_text(encoding="utf-8"), folder, ports)
        if version < [1, 25, 1]:  # these versions enable HTTP/2 by a word of `listen`
            text = text.replace("    http2 on;\n", "").replace(" ssl;\n", " ssl http2;\n")
        if path.name == "nginx.conf" and os.geteuid() == 0:
            text = f"user root;\n{text}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
        copy.chmod(0o755)


def _make_certificate(folder: Path) -> None:
    folder.mkdir()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv = ["openssl", "req", "-x509", "-days", "2", *key, *subject, *files]
    subprocess.run(argv, check=True, capture_output=True)


@contextmanager
def running_edge(folder: Path, rate_limit: int = 100) -> Iterator[Edge]:
    """Run nginx with blue live and no counter; a counter's sockets belong in `folder/counter`."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in PORTS]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        free = [int(listener.getsockname()[1]) for listener in listeners]
    ports = dict(zip(PORTS, free, strict=True))
    for name in ("slots", "counter", "rendered"):
        (folder / name).mkdir()
    _make_certificate(folder / "tls")
    _copy_configuration(folder, ports)
    with ExitStack() as stack:
        slots = {}
        for slot in ("blue", "green"):
            server = slots[slot] = stack.enter_context(SlotServer(folder / "slots", slot))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        edge = Edge(folder, ports, slots, rate_limit)
        edge.make_live("blue")
        stack.callback(edge.stop)
        edge.start()
        yield edge
