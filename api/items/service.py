"""The items of a user; for the caller, another user's item does not exist."""

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

# Statements are built once, here: building one in each request took a third of the request's time.
PUBLIC_COLUMNS = (
    *(Item.id, Item.name, Item.description, Item.price_cents),
    *(Item.created_at, Item.updated_at),
)
OWNED_BY_CALLER = (
    Item.id == bindparam("this_id"),
    Item.owner_id == bindparam("owner", type_=Item.owner_id.type),
)
# A parameter of an INSERT or UPDATE may not have the name of a column, hence the prefix.
NEW_VALUES = {
    field: bindparam(f"new_{field}", type_=getattr(Item, field).type)
    for field in ItemIn.model_fields
}
# The ETag is made from updated_at, so each value must be later than the last, even if the clock is
# set back. See docs/decisions/0007.
NEXT_UPDATED_AT = func.greatest(
    func.clock_timestamp(), Item.updated_at + text("interval '1 microsecond'")
)
# The condition is part of the statement: between a separate check and this change, another request
# could change the item.
IF_UNCHANGED = Item.updated_at == any_(bindparam("states", type_=ARRAY(DateTime(timezone=True))))

SELECT_ITEM = sql_text(select(*PUBLIC_COLUMNS).where(*OWNED_BY_CALLER))
INSERT_ITEM = insert(Item).values(
    id=bindparam("this_id"), owner_id=bindparam("owner", type_=Item.owner_id.type), **NEW_VALUES
)
UPDATE_ITEM = update(Item).where(*OWNED_BY_CALLER).values(**NEW_VALUES, updated_at=NEXT_UPDATED_AT)
DELETE_ITEM = delete(Item).where(*OWNED_BY_CALLER)

# The same statements, each with the events of its change.
CREATE = announced(EventType.ITEM_CREATED, INSERT_ITEM.returning(*PUBLIC_COLUMNS))
REPLACE = announced(EventType.ITEM_UPDATED, UPDATE_ITEM.returning(*PUBLIC_COLUMNS))
REPLACE_IF_UNCHANGED = announced(
    EventType.ITEM_UPDATED, UPDATE_ITEM.where(IF_UNCHANGED).returning(*PUBLIC_COLUMNS)
)
DELETE = announced(EventType.ITEM_DELETED, DELETE_ITEM.returning(*PUBLIC_COLUMNS))
DELETE_IF_UNCHANGED = announced(
    EventType.ITEM_DELETED, DELETE_ITEM.where(IF_UNCHANGED).returning(*PUBLIC_COLUMNS)
)

# Reads every item of the owner: 4 to 8 ms for 20,000 items. Reading a row by its key takes half a
# millisecond.
SUMMARIZE = select(func.count(), func.coalesce(func.sum(Item.price_cents), 0)).where(
    Item.owner_id == bindparam("owner_id")
)
# Chosen: how long a summary may be out of date if Redis fails when it should be deleted.
SUMMARY_SECONDS = 30


def not_found() -> ApiError:
    """Return the error for an item that does not exist or belongs to another user."""
    return ApiError(404, "item_not_found", "There is no such item.")


def new_values(item: ItemIn) -> dict[str, Any]:
    """Return the parameters of NEW_VALUES."""
    return {f"new_{field}": value for field, value in item.model_dump().items()}


async def create_item(connection: AsyncConnection, owner_id: UUID, item: ItemIn) -> dict[str, Any]:
    """Insert an item; return its public columns."""
    row = await carry_out(connection, CREATE, this_id=new_id(), owner=owner_id, **new_values(item))
    assert row is not None  # noqa: S101  an insert returns its row
    return row


async def read_item(database: Database, owner_id: UUID, item_id: UUID) -> dict[str, Any]:
    """Return the public columns of an item; raise ApiError 404 if the owner has no such item."""
    row = await database.fetch_one(SELECT_ITEM, {"this_id": item_id, "owner": owner_id})
    if row is None:
        raise not_found()
    return row


async def list_items(
    database: Database, owner_id: UUID, cursor: str | None, limit: int
) -> dict[str, Any]:
    """Return a page of items, newest first, in the form of ItemPage."""
    # One row more than the page needs: it shows whether there is a next page.
    statement = (
        select(*PUBLIC_COLUMNS)
        .where(Item.owner_id == owner_id)
        .order_by(Item.id.desc())
        .limit(limit + 1)
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
    """Return an ItemSummary as JSON. The caller caches it, because many items make it expensive."""
    async with database.read() as connection:
        count, price_cents = (await connection.execute(SUMMARIZE, {"owner_id": owner_id})).one()
    return ItemSummary(count=count, price_cents=price_cents).model_dump_json().encode()


async def replace_item(
    database: Database, owner_id: UUID, item_id: UUID, item: ItemIn, states: list[datetime] | None
) -> dict[str, Any]:
    """Replace an item if its updated_at is one of `states`; None accepts any.

    Raises:
        ApiError: 404, or 412 with the current ETag.
    """
    values = {"this_id": item_id, "owner": owner_id, **new_values(item)}
    return await _change(database, REPLACE, REPLACE_IF_UNCHANGED, values, states)


async def delete_item(
    database: Database, owner_id: UUID, item_id: UUID, states: list[datetime] | None
) -> None:
    """Delete an item if its updated_at is one of `states`; None accepts any.

    Raises:
        ApiError: 404, or 412 with the current ETag.
    """
    values = {"this_id": item_id, "owner": owner_id}
    await _change(database, DELETE, DELETE_IF_UNCHANGED, values, states)


async def _change(
    database: Database,
    change: Select[Any],
    change_if_unchanged: Select[Any],
    values: dict[str, Any],
    states: list[datetime] | None,
) -> dict[str, Any]:
    async with database.transaction() as connection:
        if states is None:
            row = await carry_out(connection, change, **values)
        else:
            row = await carry_out(connection, change_if_unchanged, **values, states=states)
    if row is not None:
        return row
    current = await read_item(database, values["owner"], values["this_id"])
    message = "The item has changed; read it again and repeat the change with the new ETag."
    raise ApiError(412, "item_changed", message, headers={"ETag": etag(current)})
