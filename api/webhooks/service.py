"""Webhooks as a client sees them: subscriptions, the log of deliveries, replay. The worker sends."""

import base64
import logging
import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api.requests.cursors import decode_cursor, encode_cursor
from api.requests.errors import ApiError
from api.storing.database import Database
from api.storing.jobs import enqueue
from api.users.models import User
from api.webhooks.events import SET_ASIDE_ALL
from api.webhooks.models import Delivery, Status, Subscription
from api.webhooks.schemas import DeliveryQuery, SubscriptionIn
from api.webhooks.targets import Rules, TargetRefused, parse_target, resolve
from api.webhooks.tasks import DELIVER_WEBHOOKS

logger = logging.getLogger(__name__)

MAX_SUBSCRIPTIONS = 10  # per user; each one is a row more in every change of an item
SECRET_BYTES = 32  # Standard Webhooks asks for 24 to 64
SECRET_OVERLAP = timedelta(hours=24)  # chosen: a receiver's next working day
PUBLIC = (
    Subscription.id,
    Subscription.url,
    Subscription.event_types,
    Subscription.is_enabled,
    Subscription.previous_secret_until,
    Subscription.created_at,
)
PUBLIC_DELIVERY = (
    Delivery.id,
    Delivery.event_type,
    Delivery.item_id,
    Delivery.status,
    Delivery.attempts,
    Delivery.next_attempt_at,
    Delivery.last_status_code,
    Delivery.last_error,
    Delivery.last_response,
    Delivery.created_at,
    Delivery.delivered_at,
)
MINE = Subscription.id == bindparam("mine"), Subscription.owner_id == bindparam("owner")
OWNER_ROW = select(User.id).where(User.id == bindparam("owner")).with_for_update(key_share=True)
HELD = select(func.count()).where(Subscription.owner_id == bindparam("owner"))
AGAIN = {
    "status": Status.PENDING.value,
    "attempts": 0,
    "next_attempt_at": func.now(),
    "delivered_at": None,
}


def not_found() -> ApiError:
    return ApiError(404, "webhook_not_found", "There is no such webhook.")


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


async def checked_url(given: SubscriptionIn, rules: Rules) -> str:
    """Return the URL as it is stored; one that is switched off only has to have the right form."""
    try:
        target = parse_target(given.url, rules)
        if given.is_enabled:
            await resolve(target, rules)
    except TargetRefused as refusal:
        details = [{"field": "body.url", "message": str(refusal)}]
        raise ApiError(
            422, "webhook_url_refused", f"Webhooks cannot be sent there: {refusal}.", details
        ) from None
    return target.url


async def subscribe(
    database: Database, rules: Rules, owner_id: UUID, given: SubscriptionIn
) -> dict[str, Any]:
    url, secret = await checked_url(given, rules), new_secret()
    chosen = {"event_types": [*given.event_types], "is_enabled": given.is_enabled}
    statement = (
        insert(Subscription)
        .values(owner_id=owner_id, url=url, secret=secret, **chosen)
        .returning(*PUBLIC)
    )
    async with database.transaction() as connection:
        # The owner's row makes two requests count one after the other.
        if (await connection.execute(OWNER_ROW, {"owner": owner_id})).one_or_none() is None:
            raise ApiError(401, "not_authenticated", "The account of this token is gone.")
        if (await connection.execute(HELD, {"owner": owner_id})).scalar_one() >= MAX_SUBSCRIPTIONS:
            message = f"An account has at most {MAX_SUBSCRIPTIONS} webhooks; delete one first."
            raise ApiError(409, "too_many_webhooks", message)
        row = dict((await connection.execute(statement)).mappings().one())
    logger.info(
        "webhook subscribed",
        extra={"action": "webhook_subscribed", "subscription_id": str(row["id"])},
    )
    return {**row, "secret": secret}


async def list_subscriptions(database: Database, owner_id: UUID) -> dict[str, Any]:
    statement = (
        select(*PUBLIC).where(Subscription.owner_id == owner_id).order_by(Subscription.id.desc())
    )
    async with database.read() as connection:
        return {"webhooks": [dict(row) for row in (await connection.execute(statement)).mappings()]}


async def read_subscription(
    database: Database, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    async with database.read() as connection:
        return await _own(connection, owner_id, subscription_id)


async def replace_subscription(
    database: Database, rules: Rules, owner_id: UUID, subscription_id: UUID, given: SubscriptionIn
) -> dict[str, Any]:
    url = await checked_url(given, rules)
    changes = {"url": url, "event_types": [*given.event_types], "is_enabled": given.is_enabled}
    async with database.transaction() as connection:
        row = await _change(connection, owner_id, subscription_id, changes)
        if not given.is_enabled:
            await connection.execute(SET_ASIDE_ALL, {"disabled_id": subscription_id})
    return row


async def rotate_secret(
    database: Database, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    """Sign by a new secret at once, and by the one before too until the receiver had time to learn it."""
    secret = new_secret()
    changes = {
        "secret": secret,
        "previous_secret": Subscription.secret,
        "previous_secret_until": func.now() + SECRET_OVERLAP,
    }
    async with database.transaction() as connection:
        row = await _change(connection, owner_id, subscription_id, changes)
    logger.info(
        "webhook secret rotated",
        extra={"action": "webhook_secret_rotated", "subscription_id": str(row["id"])},
    )
    return {**row, "secret": secret}


async def unsubscribe(database: Database, owner_id: UUID, subscription_id: UUID) -> None:
    async with database.transaction() as connection:
        own = {"mine": subscription_id, "owner": owner_id}
        deleted = (await connection.execute(delete(Subscription).where(*MINE), own)).rowcount
    if not deleted:
        raise not_found()


async def list_deliveries(
    database: Database,
    owner_id: UUID,
    subscription_id: UUID,
    query: DeliveryQuery,
) -> dict[str, Any]:
    """Return the newest first; one row more than asked for tells whether a next page exists."""
    page = select(*PUBLIC_DELIVERY).where(Delivery.subscription_id == subscription_id)
    if query.status is not None:
        page = page.where(Delivery.status == query.status.value)
    if query.cursor is not None:
        page = page.where(Delivery.id < decode_cursor(query.cursor))
    async with database.read() as connection:
        await _own(connection, owner_id, subscription_id)
        found = await connection.execute(page.order_by(Delivery.id.desc()).limit(query.limit + 1))
        rows = [dict(row) for row in found.mappings()]
    shown = rows[: query.limit]
    return {
        "deliveries": shown,
        "next_cursor": encode_cursor(shown[-1]["id"]) if len(rows) > query.limit else None,
    }


async def replay_delivery(
    database: Database, owner_id: UUID, subscription_id: UUID, delivery_id: UUID
) -> dict[str, Any]:
    """Send an event again that was delivered or set aside, with the whole schedule of attempts before it."""
    chosen = Delivery.subscription_id == subscription_id, Delivery.id == delivery_id
    async with database.transaction() as connection:
        await _enabled(connection, owner_id, subscription_id)
        status = (
            await connection.execute(select(Delivery.status).where(*chosen).with_for_update())
        ).scalar()
        if status is None:
            raise ApiError(404, "delivery_not_found", "There is no such delivery.")
        if status == Status.PENDING:
            raise ApiError(
                409,
                "delivery_pending",
                "It is being delivered; only one that ended can be replayed.",
            )
        again = update(Delivery).where(*chosen).values(**AGAIN).returning(*PUBLIC_DELIVERY)
        row = dict((await connection.execute(again)).mappings().one())
        await enqueue(connection, DELIVER_WEBHOOKS)
    return row


async def replay_failed(
    database: Database, owner_id: UUID, subscription_id: UUID, since: datetime
) -> dict[str, Any]:
    chosen = (
        Delivery.subscription_id == subscription_id,
        Delivery.status == Status.FAILED.value,
        Delivery.created_at >= since,
    )
    async with database.transaction() as connection:
        await _enabled(connection, owner_id, subscription_id)
        replayed = (
            await connection.execute(update(Delivery).where(*chosen).values(**AGAIN))
        ).rowcount
        if replayed:
            await enqueue(connection, DELIVER_WEBHOOKS)
    return {"replayed": replayed}


async def _own(
    connection: AsyncConnection, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    own = {"mine": subscription_id, "owner": owner_id}
    row = (await connection.execute(select(*PUBLIC).where(*MINE), own)).mappings().one_or_none()
    if row is None:
        raise not_found()
    return dict(row)


async def _enabled(connection: AsyncConnection, owner_id: UUID, subscription_id: UUID) -> None:
    if not (await _own(connection, owner_id, subscription_id))["is_enabled"]:
        raise ApiError(409, "webhook_disabled", "The webhook is disabled; enable it first.")


async def _change(
    connection: AsyncConnection, owner_id: UUID, subscription_id: UUID, changes: dict[str, Any]
) -> dict[str, Any]:
    own = {"mine": subscription_id, "owner": owner_id}
    statement = update(Subscription).where(*MINE).values(changes).returning(*PUBLIC)
    row = (await connection.execute(statement, own)).mappings().one_or_none()
    if row is None:
        raise not_found()
    return dict(row)
