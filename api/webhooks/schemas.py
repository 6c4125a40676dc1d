"""What clients send and get about webhooks."""

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
    id: UUID
    url: str
    event_types: list[EventType]
    is_enabled: bool = Field(description="An answer of 410 from the receiver makes it false.")
    previous_secret_until: datetime | None = Field(
        description="Until then each event carries a second signature, by the secret before."
    )
    created_at: datetime


class NewSubscriptionOut(SubscriptionOut):
    secret: str = Field(description="Signs each event. It is shown here and never again.")


class SubscriptionList(BaseModel):
    webhooks: list[SubscriptionOut]


class DeliveryOut(BaseModel):
    id: UUID = Field(description="The event's id, sent as `webhook-id`; the same in every attempt.")
    event_type: EventType
    item_id: UUID
    status: Status
    attempts: int
    next_attempt_at: datetime | None
    last_status_code: int | None
    last_error: str | None
    last_response: str | None = Field(description="The beginning of the last refusal's body.")
    created_at: datetime
    delivered_at: datetime | None


class DeliveryPage(BaseModel):
    deliveries: list[DeliveryOut]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; null on the last one."
    )


class DeliveryQuery(BaseModel):
    status: Status | SkipJsonSchema[None] = None
    cursor: str | SkipJsonSchema[None] = Field(default=None, json_schema_extra={"pattern": CURSOR})
    limit: int = Field(default=20, ge=1, le=100)


class ReplayIn(BaseModel):
    since: AwareDatetime = Field(description="Events before it are left alone.")


class ReplayOut(BaseModel):
    replayed: int
