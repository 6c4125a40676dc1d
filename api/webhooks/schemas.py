"""The JSON of webhooks, as clients send and get it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StrictBool
from pydantic.json_schema import SkipJsonSchema

from api.requests.cursors import CURSOR
from api.requests.text import Text
from api.webhooks.models import EventType, Status
from api.webhooks.targets import MAX_URL_CHARS


def _each_once(types: list[EventType]) -> list[EventType]:
    if len(set(types)) != len(types):
        raise ValueError("must name each type once")
    return types


class SubscriptionIn(BaseModel):
    """The settings of a webhook."""

    url: Annotated[Text, Field(min_length=1, max_length=MAX_URL_CHARS)] = Field(
        json_schema_extra={"format": "uri"},
        description="Where events are sent: https, a public host, no user name, no fragment.",
    )
    event_types: Annotated[
        list[EventType],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_each_once),
    ]
    is_enabled: StrictBool = True


class SubscriptionOut(BaseModel):
    """A webhook."""

    id: UUID
    url: str
    event_types: list[EventType]
    is_enabled: bool = Field(description="Becomes false when the receiver answers 410.")
    previous_secret_until: datetime | None = Field(
        description="Until this time each event is signed with the previous secret as well."
    )
    created_at: datetime


class NewSubscriptionOut(SubscriptionOut):
    """A webhook with its new secret."""

    secret: str = Field(description="Signs each event. It is shown only once, here.")


class SubscriptionList(BaseModel):
    """All webhooks of a user."""

    webhooks: list[SubscriptionOut]


class DeliveryOut(BaseModel):
    """An event that was sent, or will be sent, to a webhook."""

    id: UUID = Field(description="The event's id, sent as `webhook-id`; the same in every attempt.")
    event_type: EventType
    item_id: UUID
    status: Status
    attempts: int
    next_attempt_at: datetime | None
    last_status_code: int | None
    last_error: str | None
    last_response: str | None = Field(
        description="The beginning of the body of the last unsuccessful answer."
    )
    created_at: datetime
    delivered_at: datetime | None


class DeliveryPage(BaseModel):
    """A page of deliveries."""

    deliveries: list[DeliveryOut]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null on the last page."
    )


class DeliveryQuery(BaseModel):
    """The filter and the page of a list of deliveries."""

    status: Status | SkipJsonSchema[None] = None
    cursor: str | SkipJsonSchema[None] = Field(default=None, json_schema_extra={"pattern": CURSOR})
    limit: int = Field(default=20, ge=1, le=100)


class ReplayIn(BaseModel):
    """The events to replay."""

    since: AwareDatetime = Field(description="Events created before this time are not replayed.")


class ReplayOut(BaseModel):
    """The number of replayed events."""

    replayed: int
