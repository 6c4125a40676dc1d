"""The tables of exports: the request, and the file in pieces."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from api.storing.database import Base
from api.storing.identifiers import new_id


class Status(StrEnum):
    """The state of an export."""

    PENDING = "pending"
    FINISHED = "finished"
    FAILED = "failed"
    EXPIRED = "expired"


class Export(Base):
    """A request for a file, and the facts about the file."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'finished', 'failed', 'expired')", name="status"),
        Index("ix_exports_owner_id", "owner_id"),
        Index("ix_exports_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(20), default=Status.PENDING.value)
    row_count: Mapped[int | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ExportChunk(Base):
    """A piece of an export's file, numbered from 0."""

    __tablename__ = "export_chunks"

    export_id: Mapped[UUID] = mapped_column(
        ForeignKey("exports.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)
