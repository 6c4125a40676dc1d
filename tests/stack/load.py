"""Sends a constant load, and records its requests, failures and acknowledged rows."""

import asyncio
import contextlib
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.stack.harness import Stack, wait_until

CONNECTIONS = 16
REQUEST_SECONDS = 30.0
# Below nginx's limit of 64 connections per client; each HTTP/2 stream counts as a connection.
MOST_AT_ONCE = 40
H2_TURN = 8000
TICK_SECONDS = 0.01
TOKEN_SECONDS = 300.0  # before the access token expires, after 15 min
# nginx before 1.27.4 closes idle client connections at a reload: a request that is sent at that
# moment may fail.
CLOSED = ("RemoteProtocolError Server disconnected", "ReadError", "WriteError", "ConnectError")
MOST_CLOSED = 2
NOBODYS_ITEM = uuid.UUID(int=0)


@dataclass
class Report:
    """The results of a load; `failures` has the seconds since its start and the answer or error."""

    sent: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    slowest: float = 0.0  # seconds until any answer, or until the connection broke
    slowest_request: str = ""  # method and path of the slowest request
    slowest_failure: float = 0.0  # seconds that the slowest failed request took
    last_failure: float = 0.0  # end of the last failed request, in seconds since the start
    slots: set[str] = field(default_factory=set)
    longest_gap: float = 0.0
    # The longest time for which the load itself could not run, because of its own work or a busy
    # machine; not caused by the stack.
    stall: float = 0.0

    def p99_ms(self, start: int = 0, end: int | None = None) -> float:
        """Return the 99th percentile in ms of the successful requests, or of a slice of them."""
        return statistics.quantiles(self.latencies[start:end], n=100)[98] * 1000

    def failures_besides_reloads(self) -> list[str]:
        """Return the failures without the few closed connections that a reload of nginx causes."""
        others = [what for _, what in self.failures if not what.startswith(CLOSED)]
        closed = [what for _, what in self.failures if what.startswith(CLOSED)]
        return others + closed[MOST_CLOSED:]

    def wait_for_answers(self, count: int, seconds: float = 60) -> None:
        """Wait until `count` more requests have succeeded."""
        known = len(self.latencies)
        wait_until(
            lambda: len(self.latencies) > known + count, seconds, f"{count} requests succeed"
        )


@dataclass
class Load:
    """Requests at a constant rate over keep-alive TLS; every third is a POST with a key.

    A mixed load adds HTTP/2, new connections, uploads of 1 MB and connections that idle for up to
    15 s. Where `slow_path` names a slow route, some requests are in flight for seconds.
    """

    stack: Stack
    rate: int = 60  # a rate of 100 keeps two cores busy if two stacks run at once
    is_mixed: bool = False
    slow_path: str = ""
    connections: int = CONNECTIONS
    # every sixth request reads an item by id: that query has its own code path (`fetch_one`)
    reads_rows: bool = False
    report: Report = field(default_factory=Report)
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _stop: threading.Event = field(default_factory=threading.Event)

    def _authorize(self, request: httpx2.Request) -> httpx2.Request:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    async def _renew_token(self) -> None:
        while not await asyncio.to_thread(self._stop.wait, TOKEN_SECONDS):
            self._token = await asyncio.to_thread(self.stack.token)

    def _client(self, *, http2: bool = False) -> httpx2.AsyncClient:
        most = self.connections
        limits = httpx2.Limits(
            max_connections=most, max_keepalive_connections=most, keepalive_expiry=60
        )
        return httpx2.AsyncClient(
            base_url=self.stack.url,
            verify=self._tls,
            trust_env=False,
            http2=http2,
            auth=self._authorize,
            limits=limits,
            timeout=httpx2.Timeout(REQUEST_SECONDS),
        )

    async def _main(self) -> None:
        self._tls = self.stack.tls
        self._token = await asyncio.to_thread(self.stack.token)
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        async with self._client() as first, contextlib.AsyncExitStack() as later:
            self._started = self._last_success = time.monotonic()
            idlers = [
                asyncio.create_task(self._idle(pause))
                for pause in ((2, 7, 15) if self.is_mixed else ())
            ]
            ticking = asyncio.create_task(self._tick())
            renewing = asyncio.create_task(self._renew_token())
            await self._send_all(first, later)
            await asyncio.gather(*idlers, ticking, renewing)

    async def _tick(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            self.report.stall = max(self.report.stall, time.monotonic() - begun - TICK_SECONDS)

    async def _send_all(self, first: httpx2.AsyncClient, later: contextlib.AsyncExitStack) -> None:
        started = time.monotonic()
        pending: set[asyncio.Task[None]] = set()
        count = 0
        http2 = first
        while not self._stop.is_set():
            # Requests that a busy machine delays wait here, so the load ends soon after a stop.
            await self._places.acquire()
            if self._stop.is_set():
                break
            number = self.report.sent
            self.report.sent += 1
            if self.is_mixed and count % H2_TURN == 0:
                # nginx closes an HTTP/2 connection after 10,000 requests; this client reports that
                # as a failure.
                http2 = await later.enter_async_context(self._client(http2=True))
            if self.is_mixed and number % 20 == 7:
                task = asyncio.create_task(self._send_once(number))
            else:
                task = asyncio.create_task(self._send(http2 if number % 4 == 1 else first, number))
            pending.add(task)
            task.add_done_callback(pending.discard)
            task.add_done_callback(lambda _: self._places.release())
            count += 1
            await asyncio.sleep(max(0.0, started + count / self.rate - time.monotonic()))
        await asyncio.gather(*pending)

    async def _send_once(self, number: int) -> None:
        async with self._client() as client:
            await self._send(client, number)

    async def _idle(self, pause: float) -> None:
        """Send requests with pauses on one connection: an idle connection must survive a switch."""
        async with self._client() as client:
            while not self._stop.is_set():
                number = self.report.sent
                self.report.sent += 1
                await self._send(client, number)
                await asyncio.to_thread(self._stop.wait, pause)

    def _request(self, number: int) -> tuple[str, str, dict[str, Any], int, str]:
        """Return the method, path, body, expected status and key of a request."""
        key = f"{self.key}-{number}"
        if self.is_mixed and self.slow_path and number % 60 == 10:
            return "GET", self.slow_path, {}, 200, ""
        if self.is_mixed and number % 60 == 33:
            return "POST", "/v1/items", {"name": key, "padding": "x" * 1_000_000}, 201, key
        if number % 3 == 0:
            return "POST", "/v1/items", {"name": key}, 201, key
        if self.reads_rows and number % 6 == 4:
            return "GET", f"/v1/items/{NOBODYS_ITEM}", {}, 404, ""
        return "GET", "/v1/items?limit=5", {}, 200, ""

    async def _send(self, client: httpx2.AsyncClient, number: int) -> None:
        begun, failed = time.monotonic(), True
        try:
            failed = await self._send_counted(client, number, begun)
        finally:
            ended = time.monotonic()
            if ended - begun > self.report.slowest:
                self.report.slowest = ended - begun
                self.report.slowest_request = " ".join(self._request(number)[:2])
            if failed:
                self.report.last_failure = ended - self._started
                self.report.slowest_failure = max(self.report.slowest_failure, ended - begun)

    async def _send_counted(self, client: httpx2.AsyncClient, number: int, begun: float) -> bool:
        """Send a request, count the answer, and return whether it failed."""
        method, path, body, expected, key = self._request(number)
        try:
            answer = await client.request(method, path, json=body or None)
        except httpx2.HTTPError as error:
            self.report.failures.append((begun - self._started, f"{type(error).__name__} {error}"))
            return True
        ended = time.monotonic()
        if answer.status_code != expected:
            slot = answer.headers.get("x-slipway-slot", "no slot")
            what = f"{method} {answer.status_code} {answer.text[:200]} ({slot})"
            self.report.failures.append((begun - self._started, what))
            return True
        if path != self.slow_path:
            self.report.latencies.append(ended - begun)
        self.report.longest_gap = max(self.report.longest_gap, ended - self._last_success)
        self._last_success = ended
        self.report.slots.add(answer.headers["x-slipway-slot"])
        if key:
            self.report.acknowledged.append(key)
        return False

    @contextmanager
    def running(self) -> Iterator[Report]:
        """Run the load during the block; the report is complete after it."""
        problems: list[BaseException] = []

        def target() -> None:
            try:
                asyncio.run(self._main())
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        try:
            yield self.report
        finally:
            self._stop.set()
            thread.join(REQUEST_SECONDS + 10)
        assert not thread.is_alive(), "the load did not end"
        assert not problems, f"the load itself failed: {problems}"

    def lost_and_doubled(self) -> tuple[int, int]:
        """Return the number of missing acknowledged rows, and of keys with several rows."""
        listing = self.stack.sql(
            f"select name, count(*) from items where name like '{self.key}-%' group by name"
        )
        rows = {
            name: int(count) for name, count in (line.split("|") for line in listing.splitlines())
        }
        lost = sum(key not in rows for key in self.report.acknowledged)
        return lost, sum(count > 1 for count in rows.values())
