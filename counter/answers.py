"""Answers HTTP on a Unix socket: POST /counts for the scripts, /metrics, /healthz.

A request is small, and the counter closes its connection after the answer.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from counter import metrics
from counter.counts import Counts
from counter.datagrams import BLUE, GREEN

# Chosen: a slow or silent peer occupies one of few connections no longer than this.
REQUEST_SECONDS = 2.0
MOST_BODY_BYTES = 4096  # stub_status has about a tenth of it
MOST_AT_ONCE = 16
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Response = tuple[int, str, str]
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    410: "Gone",
}


def handler(counts: Counts) -> Handler:
    """Return the handler of a connection.

    Every answer includes the datagrams that arrived before its request: the loop receives them at
    the latest in the turn in which it accepts the connection.
    """
    places = asyncio.Semaphore(MOST_AT_ONCE)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with places, asyncio.timeout(REQUEST_SECONDS):
                method, target, body = await _read(reader)
                writer.write(_format(answer(counts, method, target, body)))
                await writer.drain()
        except (OSError, ValueError, TimeoutError, EOFError):
            pass  # the peer sent no request, or closed the connection: nobody waits for an answer
        finally:
            writer.close()

    return handle


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, str]:
    """Return method, target and body of a request.

    Raises:
        ValueError: if the text is not a request, or the body is too large.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    lengths = [line.split(":")[1] for line in head[1:] if line.lower().startswith("content-length")]
    length = int(lengths[0]) if lengths else 0
    if not 0 <= length <= MOST_BODY_BYTES:
        raise ValueError("the body is too large")
    return method, target, (await reader.readexactly(length)).decode("latin-1")


def _format(response: Response) -> bytes:
    status, kind, text = response
    content = text.encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


def answer(counts: Counts, method: str, target: str, body: str) -> Response:
    """Return the answer to a request.

    POST /counts takes nginx' stub_status as its body. Its query may begin a period (`begin=SECONDS`
    and `slot`), name the period to show (`period`), and end that period (`end`).
    """
    url = urlsplit(target)
    if url.path == "/healthz":
        return 200, _TEXT, "ok\n"
    if url.path == "/metrics":
        return 200, metrics.CONTENT_TYPE, metrics.render(counts)
    if url.path != "/counts":
        return 404, _TEXT, "there is /counts, /metrics and /healthz\n"
    if method != "POST":
        return 405, _TEXT, "/counts takes POST, with nginx' stub_status as its body\n"
    if not counts.report(body):
        return 400, _TEXT, "the body is not nginx' stub_status\n"
    return _answer_counts(counts, dict(parse_qs(url.query, keep_blank_values=True)))


def _answer_counts(counts: Counts, query: dict[str, list[str]]) -> Response:
    name = query.get("period", [""])[0]
    if "begin" in query:
        seconds, slot = _number(query["begin"][0]), query.get("slot", [""])[0]
        if slot not in {BLUE, GREEN} or not 0 < seconds < math.inf:
            return 400, _TEXT, "begin needs a number of seconds, and slot blue or green\n"
        name = counts.begin(slot, seconds)
    description = counts.describe()
    if name:
        description["period"] = counts.describe_period(name)
        if description["period"] is None:
            return 410, _TEXT, "this counter knows no such period: it may have restarted\n"
    if "end" in query:
        counts.end(name)
    return 200, _JSON, json.dumps(description) + "\n"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
