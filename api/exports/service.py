"""Exports for their owner: request, state, download. The worker writes them."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.exports.models import Export, ExportChunk, Status
from api.exports.tasks import WRITE_EXPORT
from api.requests.errors import ApiError
from api.storing.database import Database
from api.storing.jobs import enqueue

PUBLIC_COLUMNS = (
    Export.id,
    Export.status,
    Export.row_count,
    Export.size_bytes,
    Export.created_at,
    Export.finished_at,
    Export.expires_at,
)


async def request_export(connection: AsyncConnection, owner_id: UUID) -> dict[str, Any]:
    """Add an export and its job in the caller's transaction, so that neither exists alone."""
    statement = insert(Export).values(owner_id=owner_id).returning(*PUBLIC_COLUMNS)
    export = dict((await connection.execute(statement)).mappings().one())
    await enqueue(connection, WRITE_EXPORT, export_id=str(export["id"]))
    return export


async def read_export(database: Database, owner_id: UUID, export_id: UUID) -> dict[str, Any]:
    """Return an export; raise ApiError 404 if the owner has no such export."""
    statement = select(*PUBLIC_COLUMNS).where(Export.id == export_id, Export.owner_id == owner_id)
    async with database.read() as connection:
        export = (await connection.execute(statement)).mappings().one_or_none()
    if export is None:
        raise ApiError(404, "export_not_found", "There is no such export.")
    return dict(export)


async def find_download(database: Database, owner_id: UUID, export_id: UUID) -> int:
    """Return the size of the file in bytes.

    Raises:
        ApiError: 404, 409 (pending or failed) or 410 (expired).
    """
    export = await read_export(database, owner_id, export_id)
    status, expires_at = export["status"], export["expires_at"]
    if status == Status.PENDING:
        raise ApiError(
            409,
            "export_not_ready",
            "The export is still being written.",
            headers={"Retry-After": "1"},
        )
    if status == Status.FAILED:
        raise ApiError(409, "export_failed", "The export failed; request a new one.")
    if status == Status.EXPIRED or expires_at <= datetime.now(UTC):
        raise ApiError(410, "export_expired", "The export has expired; request a new one.")
    return int(export["size_bytes"])


async def stream_csv(database: Database, export_id: UUID) -> AsyncGenerator[bytes]:
    """Yield the file in chunks, without a database connection while a slow client reads.

    If a chunk is deleted meanwhile, the stream ends before its Content-Length: clients notice that.
    """
    seq = 0
    while True:
        statement = select(ExportChunk.content).where(
            ExportChunk.export_id == export_id, ExportChunk.seq == seq
        )
        async with database.read() as connection:
            content = (await connection.execute(statement)).scalar_one_or_none()
        if content is None:
            return
        yield content
        seq += 1
