"""What clients send and get about items."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.text import Text

MAX_INTEGER = 2**31 - 1  # Postgres integer


class ItemIn(BaseModel):
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Annotated[Text, Field(max_length=10_000)] | None = None
    price_cents: int | None = Field(default=None, ge=0, le=MAX_INTEGER)


class ItemOut(BaseModel):
    id: UUID
    name: str
    description: str | None
    price_cents: int | None
    created_at: datetime
    updated_at: datetime


class ItemPage(BaseModel):
    items: list[ItemOut]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
