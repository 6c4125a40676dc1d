"""Registration and login."""

import logging
from typing import Any
from uuid import UUID

import psycopg.errors
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from api.database import Database
from api.errors import ApiError
from api.tokens import Tokens
from api.users.models import User
from api.users.passwords import Passwords
from api.users.schemas import AccessToken, Login, NewUser

logger = logging.getLogger(__name__)

PUBLIC = (User.id, User.email, User.created_at)


async def register(database: Database, passwords: Passwords, new: NewUser) -> dict[str, Any]:
    password_hash = await passwords.hash(new.password)
    statement = insert(User).values(email=new.email, password_hash=password_hash).returning(*PUBLIC)
    try:
        async with database.transaction() as connection:
            user = (await connection.execute(statement)).mappings().one()
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.UniqueViolation):
            raise ApiError(409, "email_taken", "An account with this address exists already.") from None
        raise
    logger.info("user registered", extra={"action": "user_registered", "user_id": str(user["id"])})
    return dict(user)


async def log_in(database: Database, passwords: Passwords, tokens: Tokens, login: Login) -> AccessToken:
    async with database.read() as connection:
        statement = select(User.id, User.password_hash).where(User.email == login.email)
        found = (await connection.execute(statement)).one_or_none()
    # The connection is back in the pool before the slow part begins.
    known_hash = found.password_hash if found else None
    if not await passwords.verify(login.password, known_hash) or found is None:
        user_id = str(found.id) if found else None
        logger.warning("login failed", extra={"action": "login_failed", "user_id": user_id})
        raise ApiError(401, "login_failed", "The address or the password is wrong.")
    return AccessToken(access_token=tokens.issue(found.id), expires_in=tokens.lifetime_seconds)


async def read_user(database: Database, user_id: UUID) -> dict[str, Any]:
    async with database.read() as connection:
        user = (await connection.execute(select(*PUBLIC).where(User.id == user_id))).mappings().one_or_none()
    if user is None:
        raise ApiError(401, "not_authenticated", "The account of this token is gone.")
    return dict(user)
