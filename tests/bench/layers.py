"""Serves the service for the benchmark; the first path segment is the number of omitted layers.

/0 is the whole service without nginx. Each further number omits one more layer.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from api.server.metric_files import use_metric_files

use_metric_files()  # first, as in api/main.py

from api.app import create_app  # noqa: E402
from api.main import app as served  # noqa: E402
from api.main import settings  # noqa: E402
from api.requests.middleware import RequestMiddleware  # noqa: E402

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = {
    "id": UUID(int=1),
    "name": "a",
    "description": None,
    "price_cents": 1,
    "created_at": NOW,
    "updated_at": NOW,
}
NOBODY = UUID(int=2)


class Silent(RequestMiddleware):
    """Writes no log line."""

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        pass


class OneRow:
    """A database that returns the same row for every query, at once."""

    async def fetch_one(self, _statement: str, _values: Any) -> dict[str, Any]:
        return ROW


class Trusting:
    """Accepts every token as a token of the same user."""

    def user_id(self, _token: str) -> UUID:
        return NOBODY


def service(*, middleware: type[RequestMiddleware] | None = None, **parts: Any) -> FastAPI:
    app = create_app(settings)
    app.user_middleware = [Middleware(middleware, settings=settings)] if middleware else []
    # dependency_overrides would make FastAPI inspect the signatures again in every request.
    for name, part in {"database": served.state.database, **parts}.items():
        setattr(app.state, name, part)
    return app


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    body = b'{"id":"00000000-0000-0000-0000-000000000001"}'
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


LAYERS = (
    served,
    service(middleware=Silent),
    service(),
    service(database=OneRow()),
    service(database=OneRow(), tokens=Trusting()),
    bare,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        path = scope["path"]
        await LAYERS[int(path[1])]({**scope, "path": path[2:]}, receive, send)
    else:
        await served(scope, receive, send)
