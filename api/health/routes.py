"""Routes for monitoring: /livez, /readyz, /version, /metrics."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from api.configuring.settings import Settings
from api.health.schemas import Alive, NotReady, Ready, Version
from api.health.service import Readiness
from api.migrating.revisions import code_migrations
from api.observing import metrics
from api.requests.errors import RETRY_AFTER, ErrorBody, error_fields, error_responses

router = APIRouter(tags=["health"])
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {**error_responses(503)[503], "model": NotReady | ErrorBody}
}


@router.get("/livez")
async def livez() -> Alive:
    """Answer 200 while the process runs; nothing else is checked."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=NOT_READY)
async def readyz(request: Request) -> Response:
    """Check database, migrations and Redis; 503 if requests cannot be served."""
    readiness: Readiness = request.app.state.readiness
    answer = await readiness.check()
    body = answer.model_dump(exclude_none=True)
    if answer.status != "unavailable":
        return JSONResponse(body)
    body |= error_fields("not_ready", "This process cannot serve requests at the moment.")
    return JSONResponse(body, 503, RETRY_AFTER)


@router.get("/version")
async def version(request: Request) -> Version:
    """Return the release, its slot and the migration head of its code."""
    settings: Settings = request.app.state.settings
    return Version(
        release=settings.release, slot=settings.slot, migration_head=code_migrations().head
    )


@router.get("/metrics", include_in_schema=False)
async def show_metrics() -> Response:
    """Return the metrics of all processes of this slot; behind nginx this address answers 404."""
    return Response(await asyncio.to_thread(metrics.render), media_type=metrics.CONTENT_TYPE)
