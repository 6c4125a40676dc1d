"""Routes for machines that watch: /livez, /readyz, /version."""

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from api.errors import error_fields
from api.health.schemas import Alive, Ready, Version
from api.health.service import Readiness
from api.release import code_migrations
from api.settings import Settings

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Alive:
    """Tell that the process answers; touches nothing else."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses={503: {"description": "Cannot serve"}})
async def readyz(request: Request) -> Response:
    """Tell whether requests can be served: database, migrations, Redis. 503 when they cannot."""
    readiness: Readiness = request.app.state.readiness
    answer = await readiness.check()
    body = answer.model_dump(exclude_none=True)
    if answer.status != "unavailable":
        return JSONResponse(body)
    return JSONResponse(body | error_fields("not_ready", "This process cannot serve requests at the moment."), 503)


@router.get("/version")
async def version(request: Request) -> Version:
    """Name the release, its slot and the migration head that its code expects."""
    settings: Settings = request.app.state.settings
    return Version(release=settings.release, slot=settings.slot, migration_head=code_migrations().head)
