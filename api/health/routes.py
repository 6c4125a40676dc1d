"""Routes for machines that watch: /livez, /readyz, /version, /metrics."""

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
    """Tell that the process answers; touches nothing else."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=NOT_READY)
async def readyz(request: Request) -> Response:
    """Tell whether requests can be served: database, migrations, Redis. 503 when they cannot."""
    readiness: Readiness = request.app.state.readiness
    answer = await readiness.check()
    body = answer.model_dump(exclude_none=True)
    if answer.status != "unavailable":
        return JSONResponse(body)
    body |= error_fields("not_ready", "This process cannot serve requests at the moment.")
    return JSONResponse(body, 503, RETRY_AFTER)


@router.get("/version")
async def version(request: Request) -> Version:
    """Name the release, its slot and the migration head that its code expects."""
    settings: Settings = request.app.state.settings
    return Version(
        release=settings.release, slot=settings.slot, migration_head=code_migrations().head
    )


@router.get("/metrics", include_in_schema=False)
async def show_metrics() -> Response:
    """Return the metrics of all processes of this slot; nginx answers 404 in its place at the front door."""
    return Response(await asyncio.to_thread(metrics.render), media_type=metrics.CONTENT_TYPE)
