"""Registration, login, and what follows from a login: refresh and logout."""

import logging
from typing import Any
from uuid import UUID

import psycopg.errors
from sqlalchemy import bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from api.requests.errors import ApiError
from api.requests.tokens import Tokens
from api.storing.database import Database
from api.users.models import User
from api.users.passwords import Passwords
from api.users.refresh_tokens import Refreshed, RefreshTokens
from api.users.schemas import Login, NewUser, TokenPair

logger = logging.getLogger(__name__)

PUBLIC = (User.id, User.email, User.created_at)
ONE_LOGIN = select(User.id, User.password_hash).where(User.email == bindparam("email"))


async def register(database: Database, passwords: Passwords, new: NewUser) -> dict[str, Any]:
    password_hash = await passwords.hash(new.password)
    statement = insert(User).values(email=new.email, password_hash=password_hash).returning(*PUBLIC)
    try:
        async with database.transaction() as connection:
            user = (await connection.execute(statement)).mappings().one()
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.UniqueViolation):
            raise ApiError(
                409, "email_taken", "An account with this address exists already."
            ) from None
        raise
    logger.info("user registered", extra={"action": "user_registered", "user_id": str(user["id"])})
    return dict(user)


async def log_in(
    database: Database,
    passwords: Passwords,
    tokens: Tokens,
    refresh_tokens: RefreshTokens,
    login: Login,
) -> TokenPair:
    async with database.read() as connection:
        found = (await connection.execute(ONE_LOGIN, {"email": login.email})).one_or_none()
    # The connection is back in the pool before the slow part begins.
    known_hash = found.password_hash if found else None
    if not await passwords.verify(login.password, known_hash) or found is None:
        # Not the address that was typed: people type their password there.
        user_id = str(found.id) if found else None
        logger.warning("login failed", extra={"action": "login_failed", "user_id": user_id})
        raise ApiError(401, "login_failed", "The address or the password is wrong.")
    return _token_pair(tokens, await refresh_tokens.begin(database, found.id))


async def refresh(
    database: Database, tokens: Tokens, refresh_tokens: RefreshTokens, presented: str
) -> TokenPair:
    refreshed = await refresh_tokens.rotate(database, presented)
    if refreshed is None:
        raise ApiError(
            401, "refresh_failed", "The refresh token is not valid, or no longer; log in again."
        )
    return _token_pair(tokens, refreshed)


async def log_out(database: Database, refresh_tokens: RefreshTokens, presented: str) -> None:
    user_id = await refresh_tokens.revoke(database, presented)
    if user_id:
        logger.info("user logged out", extra={"action": "user_logged_out", "user_id": str(user_id)})


def _token_pair(tokens: Tokens, refreshed: Refreshed) -> TokenPair:
    return TokenPair(
        access_token=tokens.issue(refreshed.user_id),
        expires_in=tokens.lifetime_seconds,
        refresh_token=refreshed.token,
        refresh_expires_in=refreshed.seconds_left,
    )


async def read_user(database: Database, user_id: UUID) -> dict[str, Any]:
    async with database.read() as connection:
        user = (
            (await connection.execute(select(*PUBLIC).where(User.id == user_id)))
            .mappings()
            .one_or_none()
        )
    if user is None:
        raise ApiError(401, "not_authenticated", "The account of this token is gone.")
    return dict(user)
