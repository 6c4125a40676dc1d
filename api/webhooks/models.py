"""The tables of webhooks: subscriptions, and deliveries, which are both outbox and log."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from api.storing.database import Base
from api.storing.identifiers import new_id


class EventType(StrEnum):
    """The changes that a webhook can subscribe to."""

    ITEM_CREATED = "item.created"
    ITEM_UPDATED = "item.updated"
    ITEM_DELETED = "item.deleted"


class Status(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


PENDING = text("status = 'pending'")


class Subscription(Base):
    """A webhook of a user."""

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (Index("ix_webhook_subscriptions_owner_id", "owner_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    event_types: Mapped[list[str]] = mapped_column(ARRAY(String(40)))
    is_enabled: Mapped[bool]
    # In plain text: signing needs the secret itself.
    secret: Mapped[str] = mapped_column(String(100))
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_secret_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Delivery(Base):
    """An event for a subscription. No foreign key leads to the item, which may be deleted."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        # For the order of an item's events, and for the due deliveries. Both indexes hold only
        # pending deliveries.
        Index(
            "ix_webhook_deliveries_order",
            "subscription_id",
            "item_id",
            "sequence",
            postgresql_where=PENDING,
        ),
        Index("ix_webhook_deliveries_due", "next_attempt_at", postgresql_where=PENDING),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    subscription_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhook_subscriptions.id", ondelete="CASCADE"), primary_key=True
    )
    # The event's id, the same for all subscriptions. Receivers use it to recognise repetitions.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    # Taken while the item's row is locked, so it has the order of the changes; the id does not.
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    item_id: Mapped[UUID]
    event_type: Mapped[str] = mapped_column(String(40))
    content: Mapped[dict[str, Any]] = mapped_column(JSONB)
    request_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(20), server_default=Status.PENDING.value)
    attempts: Mapped[int] = mapped_column(server_default="0")
    # During an attempt: the time at which the attempt counts as lost, together with its worker.
    next_attempt_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
    last_status_code: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(String(200))
    last_response: Mapped[str | None] = mapped_column(Text)
    # Not now(), the start of the transaction, which is before it locked the item.
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    delivered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
