"""Wraps every request in one layer of pure ASGI, because each layer costs every request time.

The layer covers the request id, trusted hosts, limits of body, time and queue, headers of release,
timing and security, the access line, metrics, and an answer to every error.
"""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.configuring.settings import Settings
from api.configuring.timeouts import QUEUE_SECONDS, REQUEST_SECONDS
from api.observing import context
from api.observing.metrics import IN_FLIGHT, SHED, count_request
from api.requests.errors import RETRY_AFTER, ApiError, error_response, internal_error_response
from api.requests.limits import HEADERS_KEY

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
# Requested every few seconds, by address and not by host name.
PROBES = frozenset({"/livez", "/readyz", "/version", "/metrics"})


def request_id_from(headers: Headers) -> str:
    """Return the request's id as nginx set it, or a new one."""
    request_id = headers.get("x-request-id")
    return request_id if request_id and REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex


def queued_seconds(headers: Headers) -> float:
    """Return the seconds since nginx sent the request; 0 or less if that time is unknown."""
    try:
        return time.time() - float(headers.get("x-request-start", "inf"))
    except ValueError:
        return 0.0


def is_trusted(headers: Headers, allowed: frozenset[str]) -> bool:
    """Tell whether the Host header, with or without its port, is allowed."""
    host = headers.get("host", "").lower()
    return "*" in allowed or host in allowed or re.sub(r":\d+$", "", host) in allowed


class RequestMiddleware:
    """The outermost middleware: no exception leaves it before the answer has started."""

    def __init__(
        self, app: ASGIApp, settings: Settings, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        self.app = app
        self.max_body_bytes = settings.max_body_bytes
        self.request_seconds = request_seconds
        self.allowed_hosts = frozenset(settings.allowed_hosts)
        self.headers = [
            (b"x-slipway-release", settings.release.encode()),
            (b"x-slipway-slot", settings.slot.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = request_id_from(headers)
        context.request_id.set(request_id)
        status = 0
        is_timed = True

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # After the time limit a handler may still answer, if it turns its cancellation into
                # an error.
                if is_timed and not limit.expired():
                    limit.reschedule(None)
                headers_so_far = [*message.get("headers", ()), *scope.get(HEADERS_KEY, ())]
                message["headers"] = self._complete(headers_so_far, request_id, started)
            await send(message)

        IN_FLIGHT.inc()
        try:
            async with asyncio.timeout(self.request_seconds) as limit:
                refusal = self._refusal(scope, headers)
                if refusal:
                    await refusal(scope, receive, send_with_headers)
                else:
                    await self.app(scope, self._limited(receive), send_with_headers)
        except ClientDisconnect:
            logger.info("client disconnected", extra={"action": "client_disconnected"})
        except Exception as error:
            if status:  # the answer has started: the server has to close the connection
                raise
            is_timed = False
            await self._failure(error, limit.expired())(scope, receive, send_with_headers)
        finally:
            self._finish(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] not in PROBES:
            if queued_seconds(headers) > QUEUE_SECONDS:
                SHED.inc()
                return error_response(
                    503,
                    "overloaded",
                    "Too many requests are waiting; retry.",
                    headers=RETRY_AFTER,
                )
            if not is_trusted(headers, self.allowed_hosts):
                return error_response(
                    400, "unknown_host", "This service does not answer for that host."
                )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body_bytes:
            return self._too_large()
        return None

    def _limited(self, receive: Receive) -> Receive:
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self.max_body_bytes:
                raise ApiError(
                    413, "body_too_large", f"The body is larger than {self.max_body_bytes} bytes."
                )
            return message

        return receive_limited

    def _too_large(self) -> Response:
        # On a connection that stays open, the unread body would be parsed as the next request.
        message = f"The body is larger than {self.max_body_bytes} bytes."
        return error_response(413, "body_too_large", message, headers={"Connection": "close"})

    def _failure(self, error: Exception, is_over_time: bool) -> Response:
        if isinstance(error, TimeoutError) and is_over_time:
            logger.error("request over its time limit", extra={"action": "request_timeout"})
            return error_response(
                504, "request_timeout", f"No answer within {self.request_seconds:g} s."
            )
        logger.error("request failed", exc_info=error, extra={"action": "request_failed"})
        return internal_error_response()

    def _complete(
        self, fields: list[tuple[bytes, bytes]], request_id: str, started: float
    ) -> list[tuple[bytes, bytes]]:
        timing = b"app;dur=%.1f" % ((time.perf_counter() - started) * 1000)
        headers = [
            *fields,
            (b"x-request-id", request_id.encode()),
            (b"server-timing", timing),
            *self.headers,
        ]
        if not any(name == b"cache-control" for name, _ in fields):
            headers.append((b"cache-control", b"no-store"))
        return headers

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        IN_FLIGHT.dec()
        if scope["path"] not in PROBES:
            count_request(scope, status, seconds)
        self._log(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        level = logging.DEBUG if scope["path"] in PROBES else logging.INFO
        if not logger.isEnabledFor(level):
            return
        client = scope.get("client")
        logger.log(
            level,
            "request served",
            extra={
                "action": "request_served",
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_ms": round(seconds * 1000, 2),
                "client": client[0] if client else None,
            },
        )
