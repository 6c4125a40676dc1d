"""Events: the statement that changes an item also writes a delivery for each subscription to it.

A change without a subscription costs one read of an index, in the same round trip.
"""

from itertools import chain
from typing import Any

from sqlalchemy import (
    Delete,
    Insert,
    Select,
    Update,
    bindparam,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from api.observing import context
from api.storing.identifiers import new_id
from api.storing.jobs import enqueue
from api.webhooks.models import Delivery, EventType, Status, Subscription
from api.webhooks.tasks import DELIVER_WEBHOOKS

COUNT = "webhook_deliveries"
# Disabling a subscription fails its pending deliveries; they can be replayed.
SET_ASIDE_ALL = (
    update(Delivery)
    .where(
        Delivery.subscription_id == bindparam("disabled_id"),
        Delivery.status == Status.PENDING.value,
    )
    .values(
        status=Status.FAILED.value, next_attempt_at=None, last_error="the subscription was disabled"
    )
)


def announced(event_type: EventType, change: Insert | Update | Delete) -> Select[Any]:
    """Return a statement that makes the change, writes its events and returns the changed row.

    The change must return the item's columns, with `id`, and must have a parameter `owner`.
    """
    changed = change.cte("changed")
    content = func.jsonb_build_object(
        *chain.from_iterable((column.key, column) for column in changed.c)
    )
    event = (
        select(
            Subscription.id,
            bindparam("event_id", type_=Delivery.id.type),
            changed.c.id,
            literal(event_type.value),
            content,
            bindparam("event_request", type_=Delivery.request_id.type),
        )
        .join_from(
            changed,
            Subscription,
            Subscription.owner_id == bindparam("owner", type_=Subscription.owner_id.type),
        )
        .where(Subscription.is_enabled, Subscription.event_types.contains([event_type.value]))
    )
    columns = ["subscription_id", "id", "item_id", "event_type", "content", "request_id"]
    # It reads `changed`, so it takes its sequence number while the change locks the item: events
    # have the order of the changes.
    written = insert(Delivery).from_select(columns, event).returning(Delivery.id).cte("written")
    count = select(func.count()).select_from(written).scalar_subquery()
    return select(*changed.c, count.label(COUNT))


async def carry_out(
    connection: AsyncConnection, statement: Select[Any], **parameters: Any
) -> dict[str, Any] | None:
    """Run an announced change in the caller's transaction; return its row, or None.

    If it wrote events, a job of the same transaction wakes the worker up.
    """
    values = {**parameters, "event_id": new_id(), "event_request": context.request_id.get()}
    row = (await connection.execute(statement, values)).mappings().one_or_none()
    if row is None:
        return None
    changed = dict(row)
    if changed.pop(COUNT):
        await enqueue(connection, DELIVER_WEBHOOKS)
    return changed
