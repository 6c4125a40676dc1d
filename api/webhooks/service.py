"""Webhooks for their owner: subscriptions, the log of deliveries, replay. The worker sends."""

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

MAX_SUBSCRIPTIONS = 10  # per user; each of them adds a row to every change of an item
SECRET_BYTES = 32  # Standard Webhooks requires 24 to 64
SECRET_OVERLAP = timedelta(hours=24)  # chosen: a receiver's next working day
PUBLIC_COLUMNS = (
    Subscription.id,
    Subscription.url,
    Subscription.event_types,
    Subscription.is_enabled,
    Subscription.previous_secret_until,
    Subscription.created_at,
)
DELIVERY_COLUMNS = (
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
OWNED_BY_CALLER = (
    Subscription.id == bindparam("this_id"),
    Subscription.owner_id == bindparam("owner"),
)
LOCK_OWNER = select(User.id).where(User.id == bindparam("owner")).with_for_update(key_share=True)
COUNT_SUBSCRIPTIONS = select(func.count()).where(Subscription.owner_id == bindparam("owner"))
RESTARTED = {
    "status": Status.PENDING.value,
    "attempts": 0,
    "next_attempt_at": func.now(),
    "delivered_at": None,
}


def not_found() -> ApiError:
    """Return the error for a webhook that does not exist or belongs to another user."""
    return ApiError(404, "webhook_not_found", "There is no such webhook.")


def new_secret() -> str:
    """Return a secret in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


async def checked_url(settings: SubscriptionIn, rules: Rules) -> str:
    """Return the URL to store; for a disabled webhook, only its form is checked.

    Raises:
        ApiError: 422 with the reason, if webhooks may not go there.
    """
    try:
        target = parse_target(settings.url, rules)
        if settings.is_enabled:
            await resolve(target, rules)
    except TargetRefused as refusal:
        details = [{"field": "body.url", "message": str(refusal)}]
        raise ApiError(
            422, "webhook_url_refused", f"Webhooks cannot be sent there: {refusal}.", details
        ) from None
    return target.url


async def subscribe(
    database: Database, rules: Rules, owner_id: UUID, settings: SubscriptionIn
) -> dict[str, Any]:
    """Create a webhook; return its public columns and its secret.

    Raises:
        ApiError: 409 for more than MAX_SUBSCRIPTIONS, 422 for a refused URL.
    """
    url, secret = await checked_url(settings, rules), new_secret()
    values = {"event_types": [*settings.event_types], "is_enabled": settings.is_enabled}
    statement = (
        insert(Subscription)
        .values(owner_id=owner_id, url=url, secret=secret, **values)
        .returning(*PUBLIC_COLUMNS)
    )
    async with database.transaction() as connection:
        # The lock of the owner's row makes concurrent requests count one after the other.
        if (await connection.execute(LOCK_OWNER, {"owner": owner_id})).one_or_none() is None:
            raise ApiError(401, "not_authenticated", "The account of this token no longer exists.")
        if (
            await connection.execute(COUNT_SUBSCRIPTIONS, {"owner": owner_id})
        ).scalar_one() >= MAX_SUBSCRIPTIONS:
            message = f"An account has at most {MAX_SUBSCRIPTIONS} webhooks; delete one first."
            raise ApiError(409, "too_many_webhooks", message)
        row = dict((await connection.execute(statement)).mappings().one())
    logger.info(
        "webhook subscribed",
        extra={"action": "webhook_subscribed", "subscription_id": str(row["id"])},
    )
    return {**row, "secret": secret}


async def list_subscriptions(database: Database, owner_id: UUID) -> dict[str, Any]:
    """Return a user's webhooks, newest first, in the form of SubscriptionList."""
    statement = (
        select(*PUBLIC_COLUMNS)
        .where(Subscription.owner_id == owner_id)
        .order_by(Subscription.id.desc())
    )
    async with database.read() as connection:
        return {"webhooks": [dict(row) for row in (await connection.execute(statement)).mappings()]}


async def read_subscription(
    database: Database, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    """Return a webhook without its secret; raise ApiError 404 if the user has no such webhook."""
    async with database.read() as connection:
        return await _own(connection, owner_id, subscription_id)


async def replace_subscription(
    database: Database,
    rules: Rules,
    owner_id: UUID,
    subscription_id: UUID,
    settings: SubscriptionIn,
) -> dict[str, Any]:
    """Replace a webhook's settings; disabling it fails its pending deliveries."""
    url = await checked_url(settings, rules)
    changes = {
        "url": url,
        "event_types": [*settings.event_types],
        "is_enabled": settings.is_enabled,
    }
    async with database.transaction() as connection:
        row = await _change(connection, owner_id, subscription_id, changes)
        if not settings.is_enabled:
            await connection.execute(SET_ASIDE_ALL, {"disabled_id": subscription_id})
    return row


async def rotate_secret(
    database: Database, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    """Make a new secret; for SECRET_OVERLAP events are signed with the previous one as well."""
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
    """Delete a webhook and the log of its deliveries; raise ApiError 404 if there is none."""
    async with database.transaction() as connection:
        own = {"this_id": subscription_id, "owner": owner_id}
        deleted = (
            await connection.execute(delete(Subscription).where(*OWNED_BY_CALLER), own)
        ).rowcount
    if not deleted:
        raise not_found()


async def list_deliveries(
    database: Database,
    owner_id: UUID,
    subscription_id: UUID,
    query: DeliveryQuery,
) -> dict[str, Any]:
    """Return a page of deliveries, newest first, in the form of DeliveryPage."""
    # One row more than the page needs: it shows whether there is a next page.
    page = select(*DELIVERY_COLUMNS).where(Delivery.subscription_id == subscription_id)
    if query.status is not None:
        page = page.where(Delivery.status == query.status.value)
    if query.cursor is not None:
        page = page.where(Delivery.id < decode_cursor(query.cursor))
    async with database.read() as connection:
        await _own(connection, owner_id, subscription_id)
        result = await connection.execute(page.order_by(Delivery.id.desc()).limit(query.limit + 1))
        rows = [dict(row) for row in result.mappings()]
    deliveries = rows[: query.limit]
    return {
        "deliveries": deliveries,
        "next_cursor": encode_cursor(deliveries[-1]["id"]) if len(rows) > query.limit else None,
    }


async def replay_delivery(
    database: Database, owner_id: UUID, subscription_id: UUID, delivery_id: UUID
) -> dict[str, Any]:
    """Send a finished delivery again, with all attempts.

    Raises:
        ApiError: 404, or 409 if the delivery is pending or the webhook disabled.
    """
    delivery = Delivery.subscription_id == subscription_id, Delivery.id == delivery_id
    async with database.transaction() as connection:
        await _enabled(connection, owner_id, subscription_id)
        status = (
            await connection.execute(select(Delivery.status).where(*delivery).with_for_update())
        ).scalar()
        if status is None:
            raise ApiError(404, "delivery_not_found", "There is no such delivery.")
        if status == Status.PENDING:
            raise ApiError(
                409,
                "delivery_pending",
                "The delivery is pending; only a finished delivery can be replayed.",
            )
        again = update(Delivery).where(*delivery).values(**RESTARTED).returning(*DELIVERY_COLUMNS)
        row = dict((await connection.execute(again)).mappings().one())
        await enqueue(connection, DELIVER_WEBHOOKS)
    return row


async def replay_failed(
    database: Database, owner_id: UUID, subscription_id: UUID, since: datetime
) -> dict[str, Any]:
    """Send again the failed deliveries that were created since a time; return their number."""
    failed = (
        Delivery.subscription_id == subscription_id,
        Delivery.status == Status.FAILED.value,
        Delivery.created_at >= since,
    )
    async with database.transaction() as connection:
        await _enabled(connection, owner_id, subscription_id)
        replayed = (
            await connection.execute(update(Delivery).where(*failed).values(**RESTARTED))
        ).rowcount
        if replayed:
            await enqueue(connection, DELIVER_WEBHOOKS)
    return {"replayed": replayed}


async def _own(
    connection: AsyncConnection, owner_id: UUID, subscription_id: UUID
) -> dict[str, Any]:
    own = {"this_id": subscription_id, "owner": owner_id}
    row = (
        (await connection.execute(select(*PUBLIC_COLUMNS).where(*OWNED_BY_CALLER), own))
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise not_found()
    return dict(row)


async def _enabled(connection: AsyncConnection, owner_id: UUID, subscription_id: UUID) -> None:
    if not (await _own(connection, owner_id, subscription_id))["is_enabled"]:
        raise ApiError(409, "webhook_disabled", "The webhook is disabled; enable it first.")


async def _change(
    connection: AsyncConnection, owner_id: UUID, subscription_id: UUID, changes: dict[str, Any]
) -> dict[str, Any]:
    own = {"this_id": subscription_id, "owner": owner_id}
    statement = (
        update(Subscription).where(*OWNED_BY_CALLER).values(changes).returning(*PUBLIC_COLUMNS)
    )
    row = (await connection.execute(statement, own)).mappings().one_or_none()
    if row is None:
        raise not_found()
    return dict(row)
