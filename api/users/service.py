"""Registration, login, refresh and logout."""

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

PUBLIC_COLUMNS = (User.id, User.email, User.created_at)
SELECT_LOGIN = select(User.id, User.password_hash).where(User.email == bindparam("email"))


async def register(database: Database, passwords: Passwords, new: NewUser) -> dict[str, Any]:
    """Create an account; raise ApiError 409 if the address has one already."""
    password_hash = await passwords.hash(new.password)
    statement = (
        insert(User).values(email=new.email, password_hash=password_hash).returning(*PUBLIC_COLUMNS)
    )
    try:
        async with database.transaction() as connection:
            user = (await connection.execute(statement)).mappings().one()
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.UniqueViolation):
            raise ApiError(
                409, "email_taken", "An account with this address already exists."
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
    """Return the tokens of a new login; raise ApiError 401 for a wrong address or password."""
    async with database.read() as connection:
        user = (await connection.execute(SELECT_LOGIN, {"email": login.email})).one_or_none()
    # The connection is back in the pool before the slow part begins.
    password_hash = user.password_hash if user else None
    if not await passwords.verify(login.password, password_hash) or user is None:
        # Not the address: people sometimes type their password in its field.
        user_id = str(user.id) if user else None
        logger.warning("login failed", extra={"action": "login_failed", "user_id": user_id})
        raise ApiError(401, "login_failed", "The address or the password is wrong.")
    return _token_pair(tokens, await refresh_tokens.begin(database, user.id))


async def refresh(
    database: Database, tokens: Tokens, refresh_tokens: RefreshTokens, presented: str
) -> TokenPair:
    """Return a new pair of tokens; raise ApiError 401 if the presented one is not valid."""
    refreshed = await refresh_tokens.rotate(database, presented)
    if refreshed is None:
        raise ApiError(
            401, "refresh_failed", "The refresh token is not valid any more; log in again."
        )
    return _token_pair(tokens, refreshed)


async def log_out(database: Database, refresh_tokens: RefreshTokens, presented: str) -> None:
    """Revoke the login of a refresh token; an unknown token is no error."""
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
    """Return the account; raise ApiError 401 if it does not exist any more."""
    statement = select(*PUBLIC_COLUMNS).where(User.id == user_id)
    async with database.read() as connection:
        user = (await connection.execute(statement)).mappings().one_or_none()
    if user is None:
        raise ApiError(401, "not_authenticated", "The account of this token no longer exists.")
    return dict(user)
