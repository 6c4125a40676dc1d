"""Writes exports: a user's items as CSV, in bounded memory and in one transaction.

A job may run again at any point: the result is the same file.
"""

import csv
import io
import logging
from collections.abc import AsyncGenerator, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api.exports.models import Export, ExportChunk, Status
from api.items.models import Item
from api.storing.database import Database

logger = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024  # a download holds one chunk in memory
BATCH_ROWS = 1000  # about 2 ms of formatting on the event loop
COLUMNS = (Item.id, Item.name, Item.description, Item.price_cents, Item.created_at, Item.updated_at)
# Spreadsheets run a cell that begins with one of these (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# How many exports a transaction deletes. A file of 5 MB is 20 rows, so a transaction deletes a few
# hundred rows.
EXPIRED_AT_ONCE = 20
# A job that kills its worker every time cannot report it. So a pending export that is older than
# this and has no runnable job counts as failed. Chosen: the interval of the task that checks.
FAILED_AFTER = timedelta(minutes=5)
FORGET_AFTER = timedelta(days=30)  # until then an expired export answers 410, afterwards 404
NO_JOB_LEFT = text(
    "NOT EXISTS (SELECT FROM procrastinate_jobs job WHERE job.task_name = 'exports.write'"
    " AND job.status IN ('todo', 'doing') AND job.args ->> 'export_id' = exports.id::text)"
)


def guard_cell(value: object) -> object:
    """Return the value in a form that no spreadsheet runs as a formula."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    """Return the rows as CSV in UTF-8, each cell guarded."""
    text_buffer = io.StringIO(newline="")
    csv.writer(text_buffer).writerows([guard_cell(value) for value in row] for row in rows)
    return text_buffer.getvalue().encode()


async def write_export(database: Database, export_id: UUID, keep: timedelta) -> None:
    """Write the file and mark the export finished, in one transaction; skip a finished export."""
    async with database.transaction() as connection:
        # The row lock makes a second run of the same job wait here, and then find the result.
        statement = (
            select(Export.owner_id, Export.status).where(Export.id == export_id).with_for_update()
        )
        export = (await connection.execute(statement)).one_or_none()
        if export is None or export.status in (Status.FINISHED, Status.EXPIRED):
            logger.info(
                "export needs no work",
                extra={"action": "export_skipped", "export_id": str(export_id)},
            )
            return
        await connection.execute(delete(ExportChunk).where(ExportChunk.export_id == export_id))
        row_count, size_bytes = await _write_chunks(connection, export_id, export.owner_id)
        await connection.execute(
            update(Export)
            .where(Export.id == export_id)
            .values(
                status=Status.FINISHED.value,
                row_count=row_count,
                size_bytes=size_bytes,
                finished_at=func.clock_timestamp(),
                expires_at=func.clock_timestamp() + keep,
            )
        )
    logger.info(
        "export written",
        extra={
            "action": "export_written",
            "export_id": str(export_id),
            "rows": row_count,
            "bytes": size_bytes,
        },
    )


async def mark_failed(database: Database, export_id: UUID) -> None:
    """Mark an export failed, if it is still pending."""
    statement = update(Export).where(Export.id == export_id, Export.status == Status.PENDING)
    async with database.transaction() as connection:
        await connection.execute(statement.values(status=Status.FAILED.value))
    logger.error("export failed", extra={"action": "export_failed", "export_id": str(export_id)})


async def expire_exports(database: Database) -> None:
    """Fail exports that no job writes, delete the rows of old exports, and delete expired files."""
    now = func.now()
    async with database.transaction() as connection:
        stuck = Export.status == Status.PENDING, Export.created_at < now - FAILED_AFTER, NO_JOB_LEFT
        failed = await connection.execute(
            update(Export).where(*stuck).values(status=Status.FAILED.value)
        )
        over_status = Export.status.in_((Status.EXPIRED, Status.FAILED))
        await connection.execute(
            delete(Export).where(over_status, Export.created_at < now - FORGET_AFTER)
        )
    expired, deleted = 0, EXPIRED_AT_ONCE
    while deleted == EXPIRED_AT_ONCE:
        deleted = await _expire_some(database)
        expired += deleted
    logger.info(
        "exports expired",
        extra={"action": "exports_expired", "expired": expired, "failed": failed.rowcount},
    )


async def _expire_some(database: Database) -> int:
    """Delete the files of at most EXPIRED_AT_ONCE exports in one transaction; return how many.

    The transaction stays far below the time limit of a statement.
    """
    expired = (
        select(Export.id)
        .where(Export.status == Status.FINISHED, Export.expires_at < func.now())
        .limit(EXPIRED_AT_ONCE)
        .with_for_update()
    )
    async with database.transaction() as connection:
        export_ids = (await connection.execute(expired)).scalars().all()
        await connection.execute(delete(ExportChunk).where(ExportChunk.export_id.in_(export_ids)))
        await connection.execute(
            update(Export).where(Export.id.in_(export_ids)).values(status=Status.EXPIRED.value)
        )
    return len(export_ids)


async def _write_chunks(
    connection: AsyncConnection, export_id: UUID, owner_id: UUID
) -> tuple[int, int]:
    """Store the file in chunks; return its number of rows and its size in bytes."""
    row_count, size_bytes, seq = 0, 0, 0
    buffer = csv_lines([[column.key for column in COLUMNS]])
    async for batch in _batches(connection, owner_id):
        row_count += len(batch)
        buffer += csv_lines(batch)
        while len(buffer) >= CHUNK_BYTES:
            await _store(connection, export_id, seq, buffer[:CHUNK_BYTES])
            buffer, seq, size_bytes = buffer[CHUNK_BYTES:], seq + 1, size_bytes + CHUNK_BYTES
    if buffer:
        await _store(connection, export_id, seq, buffer)
    return row_count, size_bytes + len(buffer)


async def _batches(connection: AsyncConnection, owner_id: UUID) -> AsyncGenerator[list[Any]]:
    statement = (
        select(*COLUMNS).where(Item.owner_id == owner_id).order_by(Item.id).limit(BATCH_ROWS)
    )
    rows = (await connection.execute(statement)).all()
    while rows:
        yield list(rows)
        if len(rows) < BATCH_ROWS:
            return
        rows = (await connection.execute(statement.where(Item.id > rows[-1].id))).all()


async def _store(connection: AsyncConnection, export_id: UUID, seq: int, content: bytes) -> None:
    await connection.execute(
        insert(ExportChunk).values(export_id=export_id, seq=seq, content=content)
    )
