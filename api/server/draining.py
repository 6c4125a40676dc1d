"""The Gunicorn worker that answers every request it was given before it stops; it knows nothing of the application."""

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

# What is left for Uvicorn's own shutdown after the drain: cancelling what overran, then the
# lifespan.
STOCK_SHUTDOWN_SECONDS = 2
HEARTBEAT_SECONDS = 1.0
CONNECTION_CLOSE = (b"connection", b"close")


class DrainingServer(Server):
    """Uvicorn's server with a drain in front of its shutdown.

    The stock shutdown closes idle and just-accepted connections at once, while nginx may be writing
    a request on them: a POST then ends as 502. Here they stay open until nginx lets go of them.
    """

    def __init__(self, worker: Worker, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker = worker

    async def on_tick(self, counter: int) -> bool:
        # A master that was killed cannot tell its workers: without it they would hold the socket
        # for ever.
        is_orphan = os.getppid() != self.worker.ppid
        return await super().on_tick(counter) or is_orphan or not self.worker.alive

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        heartbeat = asyncio.create_task(self._keep_heartbeat())
        try:
            if (
                self.worker.alive
            ):  # not after SIGQUIT, Gunicorn's word for at once; nothing but Ctrl-C leads to it
                await self._drain()
            await super().shutdown(sockets)
        finally:
            heartbeat.cancel()
            # Uvicorn raises the caught signals again after this, and Gunicorn then reports a crash.
            self._captured_signals.clear()

    async def _keep_heartbeat(self) -> None:
        """Tell Gunicorn that the process lives, else it is killed with its requests in flight."""
        while True:
            self.worker.notify()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _drain(self) -> None:
        for server in self.servers:
            server.close()
        # In place: requests in flight hold this very list, and nothing replaces it once the main
        # loop ended.
        self.server_state.default_headers.append(CONNECTION_CLOSE)
        started = time.monotonic()
        await asyncio.sleep(
            0
        )  # connections accepted a moment ago are announced in the next turn of the loop
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
            # Gunicorn's WORKER_BOOT_ERROR: the master stops instead of starting workers for ever.
            raise SystemExit(3)
