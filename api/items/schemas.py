"""The JSON of items, as clients send and get it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from api.requests.text import Text

MAX_INTEGER = 2**31 - 1  # Postgres integer


def _number(value: object) -> object:
    """Refuse "5" and true, which Pydantic would convert to 5 and 1; 5.0 is a whole number."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004  Pydantic answers 422 for it
    return value


class ItemIn(BaseModel):
    """The fields that a client sets."""

    name: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Annotated[Text, Field(max_length=10_000)] | None = None
    price_cents: Annotated[int, Field(ge=0, le=MAX_INTEGER), BeforeValidator(_number)] | None = None


class ItemOut(BaseModel):
    """An item."""

    id: UUID
    name: str
    description: str | None
    price_cents: int | None
    created_at: datetime
    updated_at: datetime


class ItemSummary(BaseModel):
    """The number of a user's items and the sum of their prices."""

    count: int
    price_cents: int = Field(description="The sum of all prices; an item without a price adds 0.")


class ItemPage(BaseModel):
    """A page of items."""

    items: list[ItemOut]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null on the last page."
    )
