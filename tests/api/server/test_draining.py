"""Tests the draining worker in a real Gunicorn on a Unix socket, with clients like nginx."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Figure

CLIENTS = 8
WORKERS = 2
# The application under test: every answer takes 20 ms, so that some are always in flight.
APPLICATION = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(float(scope["path"].strip("/") or 0.02))
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""


class Server:
    """One Gunicorn master with its workers."""

    def __init__(self, directory: Path) -> None:
        (directory / "served.py").write_text(APPLICATION, encoding="utf-8")
        self.socket = directory / "slot.sock"
        self.log = directory / "log"
        root = Path(__file__).parents[3]
        options = [
            "--workers",
            str(WORKERS),
            "--keep-alive",
            "75",
            "--graceful-timeout",
            "35",
            "--log-level",
            "info",
        ]
        options += ["--no-control-socket", "--worker-class", "api.server.draining.DrainingWorker"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gunicorn",
                    *options,
                    "--bind",
                    f"unix:{self.socket}",
                    "served:app",
                ],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": f"{root}:{directory}"},
                stdout=log,
                stderr=log,
            )
        self.wait_for("Started server process", WORKERS)

    def wait_for(self, text: str, count: int) -> None:
        """Wait until the log contains a text `count` times."""
        deadline = time.monotonic() + 30
        while self.log.read_text("utf-8", "replace").count(text) < count:
            assert time.monotonic() < deadline, self.log.read_text("utf-8", "replace")
            assert self.process.poll() is None
            time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is stopped by its process id afterwards."""
    made = Server(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(10)


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> bool:
    """Send a POST; return whether the connection stays open. Raise if the answer is incomplete."""
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert await reader.readexactly(2) == b"ok"
    return b"connection: close" not in head.lower()


async def keep_posting(server: Server, until: asyncio.Event, failures: list[str]) -> int:
    """Send POSTs, on one connection while it is open; add each failure to `failures`."""
    sent, stream = 0, None
    while not until.is_set():
        try:
            if stream is None:
                stream = await asyncio.open_unix_connection(str(server.socket))
            sent += 1
            if not await post(*stream):
                stream[1].close()
                stream = None
        except (OSError, asyncio.IncompleteReadError) as error:
            failures.append(repr(error))
            stream = None
        await asyncio.sleep(0.005)
    return sent


def test_workers_are_replaced_without_a_lost_request(server: Server, figure: Figure) -> None:
    async def scenario() -> tuple[int, list[str]]:
        failures: list[str] = []
        until = asyncio.Event()
        clients = [
            asyncio.create_task(keep_posting(server, until, failures)) for _ in range(CLIENTS)
        ]
        for generation in (2, 3):
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for, "Started server process", WORKERS * generation)
            await asyncio.to_thread(
                server.wait_for, "Finished server process", WORKERS * (generation - 1)
            )
        until.set()
        return sum(await asyncio.gather(*clients)), failures

    sent, failures = asyncio.run(scenario())
    figure(f"two HUPs: {sent} POSTs, {len(failures)} failed")
    assert failures == []
    assert sent > 100


def test_an_answer_in_flight_is_given_and_a_connection_that_idles_is_still_served(
    server: Server,
) -> None:
    async def scenario() -> tuple[bool, bool]:
        busy = await asyncio.open_unix_connection(str(server.socket))
        idle = await asyncio.open_unix_connection(str(server.socket))
        assert await post(*idle)
        answer = asyncio.create_task(post(*busy, path="/3"))
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while is_kept := await post(
            *idle
        ):  # like nginx, send requests on this connection until the drain begins
            assert time.monotonic() < deadline, "no answer has Connection: close"
            await asyncio.sleep(0.02)
        return is_kept, await answer

    assert asyncio.run(scenario()) == (False, False), "both answers need Connection: close"
    assert server.process.wait(20) == 0
    assert "was sent SIGTERM" not in server.log.read_text("utf-8", "replace")


def test_a_busy_drain_is_not_killed_for_a_missing_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master kills a worker without a heartbeat after 4 s (`timeout`); an answer takes 7 s."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--timeout 4")
    server = Server(tmp_path)

    async def scenario() -> bool:
        stream = await asyncio.open_unix_connection(str(server.socket))
        answer = asyncio.create_task(post(*stream, path="/7"))
        await asyncio.sleep(0.3)
        # As after max_requests, the worker exits while the master checks heartbeats.
        for pid in re.findall(r"Booting worker with pid: (\d+)", server.log.read_text("utf-8")):
            os.kill(int(pid), signal.SIGTERM)
        return await answer

    try:
        assert asyncio.run(scenario()) is False
        assert "WORKER TIMEOUT" not in server.log.read_text("utf-8", "replace")
    finally:
        server.process.terminate()
        server.process.wait(20)


def test_workers_end_when_their_master_was_killed(server: Server) -> None:
    pids = [
        int(pid)
        for pid in re.findall(r"Booting worker with pid: (\d+)", server.log.read_text("utf-8"))
    ]
    server.process.kill()
    server.process.wait(10)
    deadline = time.monotonic() + 20
    while any(
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text()
        for pid in pids
    ):
        assert time.monotonic() < deadline, "a worker still runs after its master was killed"
        time.sleep(0.05)


def test_an_interrupt_ends_all_at_once_as_a_developer_expects(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)
    assert (
        server.process.wait(20) == 0
    )  # measured: a fraction of a second; 35 s if the workers ignore the signal
