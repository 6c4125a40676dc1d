"""What clients send and get about items."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from api.requests.text import Text

MAX_INTEGER = 2**31 - 1  # Postgres integer


def _number(given: object) -> object:
    """Refuse "5" and true, which would be taken for 5 and 1; 5.0 is a whole number of JSON."""
    if isinstance(given, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004  what pydantic reports as the caller's error
    return given


class ItemIn(BaseModel):
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Annotated[Text, Field(max_length=10_000)] | None = None
    price_cents: Annotated[int, Field(ge=0, le=MAX_INTEGER), BeforeValidator(_number)] | None = None


class ItemOut(BaseModel):
    id: UUID
    name: str
    description: str | None
    price_cents: int | None
    created_at: datetime
    updated_at: datetime


class ItemSummary(BaseModel):
    count: int
    price_cents: int = Field(description="The sum of all prices; an item without one adds nothing.")


class ItemPage(BaseModel):
    items: list[ItemOut]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; null on the last one."
    )
