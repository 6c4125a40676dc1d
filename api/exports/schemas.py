"""The JSON of exports, as clients get it."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.exports.models import Status


class ExportOut(BaseModel):
    """An export."""

    id: UUID
    status: Status
    row_count: int | None
    size_bytes: int | None
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="The file is deleted after this time.")
