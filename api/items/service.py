"""Items of one user; another user's item does not exist for the caller."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Select,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from api.items.etags import etag
from api.items.models import Item
from api.items.schemas import ItemIn, ItemSummary
from api.requests.cursors import decode_cursor, encode_cursor
from api.requests.errors import ApiError
from api.storing.database import Database, sql_text
from api.storing.identifiers import new_id
from api.webhooks.events import announced, carry_out
from api.webhooks.models import EventType

PUBLIC = (Item.id, Item.name, Item.description, Item.price_cents, Item.created_at, Item.updated_at)
# Built once: building it in each request took a third of the request's time.
MINE = (
    Item.id == bindparam("this_id"),
    Item.owner_id == bindparam("owner", type_=Item.owner_id.type),
)
ONE_ITEM = sql_text(select(*PUBLIC).where(*MINE))
# Parameters may not have a column's name in a change.
GIVEN = {
    field: bindparam(f"given_{field}", type_=getattr(Item, field).type)
    for field in ItemIn.model_fields
}
NEW = insert(Item).values(
    id=bindparam("this_id"), owner_id=bindparam("owner", type_=Item.owner_id.type), **GIVEN
)
CREATE = announced(EventType.ITEM_CREATED, NEW.returning(*PUBLIC))
# The ETag is made of it: later than every one before, whatever the clock does. See docs/decisions/0007.
LATER = func.greatest(func.clock_timestamp(), Item.updated_at + text("interval '1 microsecond'"))
NEWER = update(Item).where(*MINE).values(**GIVEN, updated_at=LATER)
GONE = delete(Item).where(*MINE)
# Checked by the statement that writes: between a check before it and the change another one would have room.
UNCHANGED = Item.updated_at == any_(bindparam("states", type_=ARRAY(DateTime(timezone=True))))
REPLACE = announced(EventType.ITEM_UPDATED, NEWER.returning(*PUBLIC))
REPLACE_UNCHANGED = announced(EventType.ITEM_UPDATED, NEWER.where(UNCHANGED).returning(*PUBLIC))
DELETE = announced(EventType.ITEM_DELETED, GONE.returning(*PUBLIC))
DELETE_UNCHANGED = announced(EventType.ITEM_DELETED, GONE.where(UNCHANGED).returning(*PUBLIC))
# Reads every item of its owner: 4 to 8 ms for 20,000 of them, where a row by its key takes half a millisecond.
SUMMARY = select(func.count(), func.coalesce(func.sum(Item.price_cents), 0)).where(
    Item.owner_id == bindparam("owner_id")
)
SUMMARY_SECONDS = (
    30  # chosen: how long a summary may be old, where Redis failed while it was to be forgotten
)


def not_found() -> ApiError:
    return ApiError(404, "item_not_found", "There is no such item.")


def given(item: ItemIn) -> dict[str, Any]:
    return {f"given_{field}": value for field, value in item.model_dump().items()}


async def create_item(connection: AsyncConnection, owner_id: UUID, item: ItemIn) -> dict[str, Any]:
    row = await carry_out(connection, CREATE, this_id=new_id(), owner=owner_id, **given(item))
    assert row is not None  # noqa: S101  an insert returns its row
    return row


async def read_item(database: Database, owner_id: UUID, item_id: UUID) -> dict[str, Any]:
    row = await database.fetch_one(ONE_ITEM, {"this_id": item_id, "owner": owner_id})
    if row is None:
        raise not_found()
    return row


async def list_items(
    database: Database, owner_id: UUID, cursor: str | None, limit: int
) -> dict[str, Any]:
    """Return the newest items first; one row more than asked for tells whether a next page exists."""
    statement = (
        select(*PUBLIC).where(Item.owner_id == owner_id).order_by(Item.id.desc()).limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(Item.id < decode_cursor(cursor))
    async with database.read() as connection:
        rows = [dict(row) for row in (await connection.execute(statement)).mappings()]
    page = rows[:limit]
    return {
        "items": page,
        "next_cursor": encode_cursor(page[-1]["id"]) if len(rows) > limit else None,
    }


async def summarize_items(database: Database, owner_id: UUID) -> bytes:
    """Return an ItemSummary as JSON; dear for who has many items, so that its caller keeps it for a while."""
    async with database.read() as connection:
        count, price_cents = (await connection.execute(SUMMARY, {"owner_id": owner_id})).one()
    return ItemSummary(count=count, price_cents=price_cents).model_dump_json().encode()


async def replace_item(
    database: Database, owner_id: UUID, item_id: UUID, item: ItemIn, states: list[datetime] | None
) -> dict[str, Any]:
    """Replace an item if it is in one of these states; None stands for any."""
    values = {"this_id": item_id, "owner": owner_id, **given(item)}
    return await _change(database, REPLACE, REPLACE_UNCHANGED, values, states)


async def delete_item(
    database: Database, owner_id: UUID, item_id: UUID, states: list[datetime] | None
) -> None:
    """Delete an item if it is in one of these states; None stands for any."""
    await _change(
        database, DELETE, DELETE_UNCHANGED, {"this_id": item_id, "owner": owner_id}, states
    )


async def _change(
    database: Database,
    always: Select[Any],
    unchanged: Select[Any],
    values: dict[str, Any],
    states: list[datetime] | None,
) -> dict[str, Any]:
    async with database.transaction() as connection:
        if states is None:
            row = await carry_out(connection, always, **values)
        else:
            row = await carry_out(connection, unchanged, **values, states=states)
    if row is not None:
        return row
    current = await read_item(database, values["owner"], values["this_id"])
    message = "The item has changed since; read it again and repeat the change with the new ETag."
    raise ApiError(412, "item_changed", message, headers={"ETag": etag(current)})
