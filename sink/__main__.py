"""`python -m sink`: receives webhooks over HTTP and mail over SMTP, and shows them as JSON.

It keeps them in memory and asks for no login: it is only for a developer's machine.
"""

import asyncio
import email.policy
import json
import os
import sys
from collections import deque
from datetime import UTC, datetime
from email.parser import BytesParser
from typing import Any

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

EX_CONFIG = 78  # as api/configuring/settings.py
HTTP_PORT, SMTP_PORT = 80, 25  # inside the container, where any user may bind them
KEPT = 200  # of each kind; the oldest are dropped first
MAX_MAIL_BYTES = 128 * 1024  # 200 of them and 200 webhooks of 32 kB stay below 32 MB
MAX_WEBHOOK_BYTES = 32 * 1024  # an item's event has about 500

webhooks: deque[dict[str, Any]] = deque(maxlen=KEPT)
mails: deque[dict[str, Any]] = deque(maxlen=KEPT)


async def show(_: Request) -> JSONResponse:
    """Return everything that was received."""
    return JSONResponse({"webhooks": list(webhooks), "mails": list(mails)})


async def clear(_: Request) -> Response:
    """Forget everything that was received."""
    webhooks.clear()
    mails.clear()
    return Response(status_code=204)


async def take_webhook(request: Request) -> Response:
    """Keep a webhook, whatever its path; 413 above MAX_WEBHOOK_BYTES."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_WEBHOOK_BYTES:
            return Response(status_code=413)
    text = body.decode(errors="replace")
    webhooks.append(
        {
            "received_at": now(),
            "path": request.url.path,
            "headers": dict(request.headers),
            "body": text,
            "json": read_json(text),
        }
    )
    return Response(status_code=204)


class MailTaker:
    """Keeps each mail that aiosmtpd receives."""

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail."""
        content = (
            envelope.content
            if isinstance(envelope.content, bytes)
            else (envelope.content or "").encode()
        )
        message = BytesParser(policy=email.policy.default).parsebytes(content)
        text = message.get_body(("plain", "html"))
        mails.append(
            {
                "received_at": now(),
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": message["subject"],
                "text": text.get_content() if text else "",
                "source": content.decode(errors="replace"),
            }
        )
        return "250 OK"


def now() -> str:
    """Return the time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_json(text: str) -> Any:
    """Return the value of a JSON body, or None if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


app = Starlette(
    routes=[
        Route("/", show, methods=["GET"]),
        Route("/", clear, methods=["DELETE"]),
        Route("/{path:path}", take_webhook, methods=["POST"]),
    ]
)


async def main() -> None:
    """Serve HTTP and SMTP until a signal."""
    server = uvicorn.Server(uvicorn.Config(app, host="0.0.0.0", port=HTTP_PORT, access_log=False))  # noqa: S104
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(
        lambda: SMTP(MailTaker(), data_size_limit=MAX_MAIL_BYTES, hostname="sink", loop=loop),
        host="0.0.0.0",  # noqa: S104  the container's network; the host maps a port of loopback
        port=SMTP_PORT,
    )
    async with smtp:
        await server.serve()


if __name__ == "__main__":
    if os.environ.get("ENVIRONMENT") != "development":
        sys.stderr.write("error: the sink has no login and is only for ENVIRONMENT=development\n")
        sys.exit(EX_CONFIG)
    asyncio.run(main())
