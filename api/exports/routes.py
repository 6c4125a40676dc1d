"""Routes under /v1/exports."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import StreamingResponse

from api.exports import service
from api.exports.schemas import ExportOut
from api.idempotency.service import REPLAYED_HEADER, OnceDep, json_answer
from api.requests.dependencies import DatabaseDep, UserId
from api.requests.errors import error_responses
from api.requests.limits import RuleName, per_user

router = APIRouter(prefix="/exports", tags=["exports"], responses=error_responses(401))
ACCEPTED: dict[str, Any] = {"headers": REPLAYED_HEADER}


@router.post(
    "",
    status_code=202,
    response_model=ExportOut,
    responses={202: ACCEPTED, **error_responses(409)},
    dependencies=[per_user(RuleName.USER, RuleName.EXPORT)],
)
async def request_export(user_id: UserId, once: OnceDep, database: DatabaseDep) -> Response:
    """Request a CSV file of all your items; it is written in the background."""

    async def request(connection: AsyncConnection) -> Response:
        return json_answer(ExportOut, await service.request_export(connection, user_id), 202)

    return await once.answer(database, request)


@router.get("/{export_id}", response_model=ExportOut, responses=error_responses(404))
async def read_export(export_id: UUID, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return the state of an export."""
    return await service.read_export(database, user_id, export_id)


@router.get(
    "/{export_id}/csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}, **error_responses(404, 409, 410)},
)
async def download_export(
    export_id: UUID, user_id: UserId, database: DatabaseDep
) -> StreamingResponse:
    """Download a finished export."""
    size_bytes = await service.find_download(database, user_id, export_id)
    headers = {
        "Content-Length": str(size_bytes),
        "Content-Disposition": f'attachment; filename="items-{export_id}.csv"',
    }
    return StreamingResponse(
        service.stream_csv(database, export_id), headers=headers, media_type="text/csv"
    )
