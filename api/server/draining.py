"""The Gunicorn worker that answers every request in flight before it stops.

It is independent of the application.
"""

import asyncio
import contextlib
import os
import socket
import time
from typing import Any

from gunicorn.workers.base import Worker
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from api.configuring.timeouts import GRACEFUL_SECONDS, UPSTREAM_IDLE_SECONDS

# For Uvicorn's own shutdown after the drain: it cancels late requests, then ends the lifespan.
STOCK_SHUTDOWN_SECONDS = 2
HEARTBEAT_SECONDS = 1.0
CONNECTION_CLOSE = (b"connection", b"close")


class DrainingServer(Server):
    """Uvicorn's server with a drain before its shutdown.

    Uvicorn's shutdown closes idle and just-accepted connections at once. nginx may be writing a
    request on one of them, and a POST then ends as 502. This server keeps them open until nginx
    closes them.
    """

    def __init__(self, worker: Worker, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker = worker

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to stop."""
        # A killed master cannot stop its workers: they would keep the socket for ever.
        is_orphan = os.getppid() != self.worker.ppid
        return await super().on_tick(counter) or is_orphan or not self.worker.alive

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down."""
        heartbeat = asyncio.create_task(self._keep_heartbeat())
        try:
            # On SIGQUIT, which only Ctrl-C causes, Gunicorn stops at once: there is no drain then.
            if self.worker.alive:
                await self._drain()
            await super().shutdown(sockets)
        finally:
            heartbeat.cancel()
            # Otherwise Uvicorn raises the caught signals again, and Gunicorn reports a crash.
            self._captured_signals.clear()

    async def _keep_heartbeat(self) -> None:
        """Send Gunicorn heartbeats: without them it kills the process, with its requests."""
        while True:
            self.worker.notify()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _drain(self) -> None:
        for server in self.servers:
            server.close()
        # Changed in place, because requests in flight refer to this list.
        self.server_state.default_headers.append(CONNECTION_CLOSE)
        started = time.monotonic()
        # A connection that was just accepted appears in the next iteration of the event loop.
        await asyncio.sleep(0)
        while time.monotonic() - started < GRACEFUL_SECONDS:
            connections = self.server_state.connections
            is_busy = any(_is_answering(connection) for connection in connections)
            idle_is_over = time.monotonic() - started > UPSTREAM_IDLE_SECONDS
            if not connections or (idle_is_over and not is_busy):
                return
            await asyncio.sleep(0.05)


def _is_answering(connection: Any) -> bool:
    cycle = connection.cycle
    return cycle is not None and not cycle.response_complete


class DrainingWorker(UvicornWorker):
    """The worker class named in `gunicorn_conf.py`."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class reads it as it is
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": STOCK_SHUTDOWN_SECONDS,
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self, config=self.config)
        self._install_sigquit_handler()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve(sockets=self.sockets)
        if not server.started:
            # 3 is Gunicorn's WORKER_BOOT_ERROR: the master stops and starts no further workers.
            raise SystemExit(3)
