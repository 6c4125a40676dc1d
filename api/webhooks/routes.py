"""Routes under /v1/webhooks."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from api.requests.dependencies import DatabaseDep, UserId
from api.requests.errors import error_responses
from api.requests.limits import RuleName, per_user
from api.webhooks import service
from api.webhooks.schemas import (
    DeliveryOut,
    DeliveryPage,
    DeliveryQuery,
    NewSubscriptionOut,
    ReplayIn,
    ReplayOut,
    SubscriptionIn,
    SubscriptionList,
    SubscriptionOut,
)
from api.webhooks.targets import Rules

router = APIRouter(
    prefix="/webhooks",
    tags=["webhooks"],
    responses=error_responses(401),
    dependencies=[per_user(RuleName.USER)],
)


async def get_rules(request: Request) -> Rules:
    """Return the operator's rules for URLs."""
    rules: Rules = request.app.state.webhook_rules
    return rules


RulesDep = Annotated[Rules, Depends(get_rules)]


@router.post("", status_code=201, response_model=NewSubscriptionOut, responses=error_responses(409))
async def subscribe(
    body: SubscriptionIn, user_id: UserId, database: DatabaseDep, rules: RulesDep
) -> dict[str, Any]:
    """Send the changes of your items to a URL of yours, signed as in Standard Webhooks.

    The events of an item arrive in order, each at least once. A delivery succeeds if your server
    answers 2xx within 10 seconds. Otherwise it is retried for about a day, and the item's later
    events wait. An answer of 410 disables the webhook.
    """
    return await service.subscribe(database, rules, user_id, body)


@router.get("", response_model=SubscriptionList)
async def list_webhooks(user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return your webhooks, newest first."""
    return await service.list_subscriptions(database, user_id)


@router.get("/{webhook_id}", response_model=SubscriptionOut, responses=error_responses(404))
async def read_webhook(webhook_id: UUID, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return a webhook of yours, without its secret."""
    return await service.read_subscription(database, user_id, webhook_id)


@router.put("/{webhook_id}", response_model=SubscriptionOut, responses=error_responses(404))
async def replace_webhook(
    webhook_id: UUID, body: SubscriptionIn, user_id: UserId, database: DatabaseDep, rules: RulesDep
) -> dict[str, Any]:
    """Replace a webhook's settings; the secret stays.

    Disabling a webhook fails its pending deliveries; you can replay them later.
    """
    return await service.replace_subscription(database, rules, user_id, webhook_id, body)


@router.delete("/{webhook_id}", status_code=204, responses=error_responses(404))
async def unsubscribe(webhook_id: UUID, user_id: UserId, database: DatabaseDep) -> None:
    """Delete a webhook and the log of its deliveries."""
    await service.unsubscribe(database, user_id, webhook_id)


@router.post(
    "/{webhook_id}/secret", response_model=NewSubscriptionOut, responses=error_responses(404)
)
async def rotate_secret(webhook_id: UUID, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Create a new secret. For 24 hours events are signed with the previous secret as well."""
    return await service.rotate_secret(database, user_id, webhook_id)


@router.get("/{webhook_id}/deliveries", response_model=DeliveryPage, responses=error_responses(404))
async def list_deliveries(
    webhook_id: UUID,
    user_id: UserId,
    database: DatabaseDep,
    page: Annotated[DeliveryQuery, Query()],
) -> dict[str, Any]:
    """Return the webhook's deliveries, newest first, page by page. They are kept for 30 days."""
    return await service.list_deliveries(database, user_id, webhook_id, page)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=202,
    response_model=DeliveryOut,
    responses=error_responses(404, 409),
)
async def replay_delivery(
    webhook_id: UUID, delivery_id: UUID, user_id: UserId, database: DatabaseDep
) -> dict[str, Any]:
    """Send an event again, with the same id. It may arrive after later events of its item."""
    return await service.replay_delivery(database, user_id, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/replay",
    status_code=202,
    response_model=ReplayOut,
    responses=error_responses(404, 409),
)
async def replay_failed(
    webhook_id: UUID, body: ReplayIn, user_id: UserId, database: DatabaseDep
) -> dict[str, Any]:
    """Send again all failed events that were created since a time."""
    return await service.replay_failed(database, user_id, webhook_id, body.since)
