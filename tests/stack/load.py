"""A constant mixed load with a ledger: what was sent, what failed, and which rows were acknowledged."""

import asyncio
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

from tests.stack.harness import Stack

CONNECTIONS = 16
REQUEST_SECONDS = 30.0


@dataclass
class Report:
    """What the load saw; `failures` holds seconds since the start and what was seen."""

    sent: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    slots: set[str] = field(default_factory=set)
    longest_gap: float = 0.0

    def p99_ms(self) -> float:
        """Return the 99th percentile of the successful requests' seconds, in milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[98] * 1000


@dataclass
class Load:
    """Requests at a constant rate over keep-alive TLS connections; every third is a POST with a key of its own."""

    stack: Stack
    rate: int = 100
    report: Report = field(default_factory=Report)
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _stop: threading.Event = field(default_factory=threading.Event)

    async def _main(self) -> None:
        token = await asyncio.to_thread(self.stack.token)
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=60)
        async with httpx2.AsyncClient(
            base_url=self.stack.url,
            verify=self.stack.tls,
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"},
            limits=limits,
            timeout=httpx2.Timeout(REQUEST_SECONDS),
        ) as client:
            await self._send_all(client)

    async def _send_all(self, client: httpx2.AsyncClient) -> None:
        started = time.monotonic()
        self._started = self._last_success = started
        pending: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            number = self.report.sent
            self.report.sent += 1
            task = asyncio.create_task(self._send(client, number))
            pending.add(task)
            task.add_done_callback(pending.discard)
            await asyncio.sleep(max(0.0, started + (number + 1) / self.rate - time.monotonic()))
        await asyncio.gather(*pending)

    async def _send(self, client: httpx2.AsyncClient, number: int) -> None:
        begun = time.monotonic()
        is_post = number % 3 == 0
        key = f"{self.key}-{number}"
        try:
            if is_post:
                answer = await client.post("/v1/items", json={"name": key})
            else:
                answer = await client.get("/v1/items", params={"limit": 5})
        except httpx2.HTTPError as error:
            self.report.failures.append((begun - self._started, f"{type(error).__name__} {error}"))
            return
        ended = time.monotonic()
        if answer.status_code != (201 if is_post else 200):
            what = f"{'POST' if is_post else 'GET'} {answer.status_code} {answer.text[:200]}"
            self.report.failures.append((begun - self._started, what))
            return
        self.report.latencies.append(ended - begun)
        self.report.longest_gap = max(self.report.longest_gap, ended - self._last_success)
        self._last_success = ended
        self.report.slots.add(answer.headers["x-slipway-slot"])
        if is_post:
            self.report.acknowledged.append(key)

    @contextmanager
    def running(self) -> Iterator[Report]:
        """Keep the load on while the block runs; the report is complete when it ends."""
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
        assert not problems, f"the load broke: {problems}"

    def lost_and_doubled(self) -> tuple[int, int]:
        """Return how many acknowledged rows are missing, and how many keys have more than one row."""
        listing = self.stack.sql(f"select name, count(*) from items where name like '{self.key}-%' group by name")
        rows = {name: int(count) for name, count in (line.split("|") for line in listing.splitlines())}
        lost = sum(key not in rows for key in self.report.acknowledged)
        return lost, sum(count > 1 for count in rows.values())
