"""The reference: an authenticated read of a row, written like a plain FastAPI template."""

import os
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict
from sqlalchemy import URL, DateTime, ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The tables that the service's migrations created."""


class User(Base):
    __tablename__ = "users"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Item(Base):
    __tablename__ = "items"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    price_cents: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ItemOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    name: str
    description: str | None
    price_cents: int | None
    created_at: datetime
    updated_at: datetime


def secret(name: str) -> str:
    return Path("/run/secrets", name).read_text(encoding="utf-8").strip()


TOKEN_KEY = secret("token_key")
address = URL.create(
    "postgresql+psycopg",
    username="slipway",
    password=secret("database_password"),
    host=os.environ.get("DATABASE_HOST", "postgres"),
    database="slipway",
)
# Twice the size of the service's pool. With the default of 15 the processes could open more
# connections than Postgres accepts.
engine = create_async_engine(address, pool_size=10, max_overflow=0)
new_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="login")


async def get_session() -> AsyncGenerator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_current_user(token: Annotated[str, Depends(bearer)], session: Session) -> User:
    try:
        claims = jwt.decode(
            token, TOKEN_KEY, algorithms=["HS256"], audience="slipway-api", issuer="slipway"
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "Could not validate credentials") from error
    user = (
        await session.execute(select(User).where(User.id == UUID(claims["sub"])))
    ).scalar_one_or_none()
    if user is None:
        raise HTTPException(401, "Could not validate credentials")
    return user


@app.get("/v1/items/{item_id}", response_model=ItemOut)
async def read_item(
    item_id: UUID, session: Session, user: Annotated[User, Depends(get_current_user)]
) -> Any:
    statement = select(Item).where(Item.id == item_id, Item.owner_id == user.id)
    item = (await session.execute(statement)).scalar_one_or_none()
    if item is None:
        raise HTTPException(404, "Item not found")
    return item
