"""Plays each refusal that a client can cause during a watch, against a real nginx.

The watch is the scripts' own: its query runs in a shell, as in nginx' container.
"""

import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from stack import https
from stack.commands.command import Command
from stack.config.project import Project
from stack.https import Answer, Question
from stack.parts import watch
from stack.parts.counts import AFTER
from stack.rules.verdict import NO_TRAFFIC
from stack.runner import Result, accepted

from tests.counter.processes import NGINX, ROOT, Counter, Edge, running_edge
from tests.scripts.counting import SOCKET
from tests.scripts.recording import RecordingRunner

ADDRESSES = [f"127.0.0.{number}" for number in range(11, 16)]
HEAD = b"%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"


def request(first: bytes = b"GET /a", headers: bytes = b"") -> bytes:
    return HEAD % (first, headers)


def large_headers(count: int) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (number, b"x" * 7000) for number in range(count))


# The bytes that a client sends, by the status with which nginx refuses them; 0 is no answer.
REFUSALS: dict[str, tuple[int, bytes]] = {
    "no method": (400, b"rubbish\r\n\r\n"),
    "no host": (0, b"GET / HTTP/1.1\r\n\r\n"),
    "two lengths": (400, request(headers=b"Content-Length: 1\r\nContent-Length: 2\r\n")),
    "metrics": (404, request(b"GET /metrics")),
    "internal page": (404, request(b"GET /errors/500")),
    "method": (405, request(b"TRACE /a")),
    "body": (413, request(b"POST /a", b"Content-Length: 9000000\r\n")),
    "address": (414, request(b"GET /" + b"a" * 9000)),
    "header": (431, request(headers=b"X-A: " + b"a" * 9000 + b"\r\n")),
    "headers": (431, request(headers=large_headers(6))),
    "transfer encoding": (501, request(b"POST /a", b"Transfer-Encoding: gzip\r\n")),
    "version": (505, b"GET / HTTP/3.0\r\n\r\n"),
    "host": (0, b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"),
    "half a head": (0, b"GET /a HTT"),
    "half a body": (0, request(b"POST /a", b"Content-Length: 9\r\n") + b"{"),
}
# The other pages of errors.conf: the test below plays some in another way, and no client can cause
# the rest.
PLAYED_OTHERWISE = {"429", "497"}
NOT_BY_A_CLIENT = {"403", "421", "500", "502", "504"}
PAGES = {"494": "431"}


@dataclass
class ShellRunner(RecordingRunner):
    """Runs the query to the counter in a shell of this machine, and asks a real front door."""

    edge: Edge | None = None

    def read(self, command: Command) -> Result:
        assert self.edge
        words = command.argv[-1]
        assert SOCKET in words, shlex.join(command.argv)
        argv = ["sh", "-c", self.edge.translate(words)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return accepted(command, Result(ended.returncode, ended.stdout, ended.stderr))

    def ask(self, question: Question) -> Answer:
        assert self.edge
        trust = self.edge.folder / "tls/fullchain.pem"
        return https.ask(replace(question, port=self.edge.ports[8443], trust=trust))

    def clock(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@contextmanager
def acting(act: Callable[[str], None]) -> Iterator[None]:
    """Let each client repeat an action while the block runs."""
    ending, faults = threading.Event(), list[BaseException]()

    def run(address: str) -> None:
        try:
            while not ending.is_set():
                act(address)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(address,)) for address in ADDRESSES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
    assert faults == []


@contextmanager
def counted_edge(rate_limit: int) -> Iterator[tuple[Edge, Counter]]:
    """Yield a real nginx and its counter."""
    if not NGINX or not shutil.which("curl"):
        pytest.skip("no nginx or no curl here; tests/stack/test_counter.py runs the stack's")
    # A Unix socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="counter-") as folder:
        counter = Counter(Path(folder) / "counter")
        with running_edge(Path(folder), rate_limit) as edge:
            counter.start()
            try:
                yield edge, counter
            finally:
                counter.kill()


@pytest.fixture
def place() -> Iterator[tuple[Edge, Counter]]:
    with counted_edge(rate_limit=100) as running:
        yield running


@pytest.fixture
def edge(place: tuple[Edge, Counter]) -> Edge:
    return place[0]


@pytest.fixture
def runner(edge: Edge) -> ShellRunner:
    return ShellRunner(edge=edge)


@pytest.fixture
def project(loaded: Project) -> Project:
    return Project(loaded.root, {**loaded.values, "WATCH_SECONDS": "3"})


def watched(runner: ShellRunner, project: Project) -> watch.Outcome:
    name = watch.begin(runner, project, "blue", AFTER)
    return watch.watch_slot(runner, project, name, NO_TRAFFIC)


def refuse_all(edge: Edge, address: str) -> None:
    """Play each refusal, between two requests that the slot answers."""
    for name, (status, content) in REFUSALS.items():
        assert edge.ask("/a", address) == 200
        if status:
            assert edge.send(content, address) == status, name
        else:
            with edge.connect(address) as connection:
                connection.sendall(content)
    with edge.connect(address) as connection:  # the client disconnects while the slot works
        connection.sendall(request(b"GET /slow"))
    plain = ("127.0.0.1", edge.ports[8443])
    with socket.create_connection(plain, 10, source_address=(address, 0)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in connection.makefile("rb").readline()


def test_no_refusal_of_nginx_takes_a_release_back(
    runner: ShellRunner, place: tuple[Edge, Counter], project: Project
) -> None:
    edge, counter = place
    edge.slots["blue"].delays["/slow"] = 0.5
    edge.slots["blue"].statuses["/refused"] = 422
    with acting(lambda address: refuse_all(edge, address)):
        outcome = watched(runner, project)
    assert outcome.reason == ""
    assert " 0.0% errors" in outcome.text, outcome.text
    slots = counter.counts()["slots"]
    assert slots["blue"]["answers"] >= 20
    assert slots["nginx"]["errors"] >= 10  # 501 and 505 of five clients
    assert (slots["blue"]["errors"], slots["unnamed"]["errors"]) == (0, 0)


def test_no_flood_takes_a_release_back(project: Project) -> None:
    """More requests than one address may send are refused with 429."""
    with counted_edge(rate_limit=5) as (edge, counter):
        statuses: set[int] = set()
        with acting(lambda address: statuses.add(edge.ask("/a", address))):
            outcome = watched(ShellRunner(edge=edge), project)
        assert outcome.reason == ""
        assert statuses == {200, 429}
        assert counter.counts()["slots"]["blue"]["errors"] == 0


def test_one_client_that_knows_a_route_with_an_error_takes_no_release_back(
    runner: ShellRunner, edge: Edge, project: Project
) -> None:
    edge.slots["blue"].statuses = {"/broken": 500, "/gone": 0}

    def act(address: str) -> None:
        is_abuser = address == ADDRESSES[0]
        for path in ("/broken", "/gone") if is_abuser else ("/a", "/b", "/c"):
            edge.ask(path, address)

    with acting(act):
        outcome = watched(runner, project)
    assert outcome.reason == ""
    assert "errors of fewer than 3 addresses" in outcome.text


@pytest.mark.parametrize("status", [500, 0], ids=["errors", "no-answers"])
def test_a_release_that_fails_for_its_clients_is_taken_back(
    runner: ShellRunner, edge: Edge, project: Project, status: int
) -> None:
    edge.slots["blue"].statuses["/a"] = status

    def act(address: str) -> None:
        edge.ask("/a", address)
        edge.ask("/b", address)

    with acting(act):
        outcome = watched(runner, project)
    assert re.fullmatch(r"(4|5)\d% of \d+ requests failed, 0% before", outcome.reason)


def test_a_release_that_fails_for_nobody_but_the_watch_is_taken_back(
    runner: ShellRunner, edge: Edge, project: Project
) -> None:
    edge.slots["blue"].statuses["/version"] = 500
    reason = watched(runner, project).reason
    assert re.fullmatch(r"(\d) of \1 requests of the watch failed, and few others came", reason)


def test_each_page_of_an_error_is_played_or_no_client_causes_it() -> None:
    text = (ROOT / "nginx/snippets/errors.conf").read_text(encoding="utf-8")
    pages = {PAGES.get(page, page) for page in re.findall(r"^error_page (\d+)", text, re.MULTILINE)}
    played = {str(status) for status, _ in REFUSALS.values() if status}
    assert pages == played | PLAYED_OTHERWISE | NOT_BY_A_CLIENT
