"""Refresh tokens: opaque, valid for one exchange. Postgres stores only their hashes."""

import base64
import hashlib
import hmac
import logging
import secrets
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Integer,
    Interval,
    and_,
    bindparam,
    cast,
    exists,
    extract,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import aliased

from api.configuring.settings import Settings
from api.storing.database import Database
from api.storing.identifiers import new_id
from api.users.models import RefreshToken

logger = logging.getLogger(__name__)

TOKEN_BYTES = 32  # 256 bits cannot be guessed, so their hash needs neither salt nor slowness
# Above nginx's proxy_read_timeout (20 s): a client that got no answer may repeat the request.
# Short, because within this time a thief gets the same successor as the owner, and the theft is
# detected only when both have used that successor.
REPEAT_SECONDS = 30

_Relative = aliased(RefreshToken)
_Successor = aliased(RefreshToken)
_is_presented = RefreshToken.token_hash == bindparam("presented")
_is_live = and_(
    RefreshToken.expires_at > func.now(),
    # Also the row's own column: after waiting for its lock, Postgres reads only this row again.
    RefreshToken.revoked_at.is_(None),
    ~exists().where(
        _Relative.family_id == RefreshToken.family_id, _Relative.revoked_at.is_not(None)
    ),
)
_seconds_left = cast(extract("epoch", RefreshToken.expires_at - func.now()), Integer).label(
    "seconds_left"
)
_used = (
    update(RefreshToken)
    .where(_is_presented, RefreshToken.used_at.is_(None), _is_live)
    .values(used_at=func.now())
    .returning(RefreshToken.family_id, RefreshToken.user_id, RefreshToken.expires_at)
    .cte("used")
)

BEGIN = insert(RefreshToken).values(
    token_hash=bindparam("hash"),
    family_id=bindparam("family_id"),
    user_id=bindparam("user_id"),
    expires_at=func.now() + bindparam("lifetime", type_=Interval),
)
# One statement: if two run at the same time, the second waits for the row's lock and then sees that
# the token is used.
ROTATE = (
    insert(RefreshToken)
    .from_select(
        ["token_hash", "family_id", "user_id", "expires_at"],
        select(
            bindparam("successor", type_=RefreshToken.token_hash.type),
            _used.c.family_id,
            _used.c.user_id,
            _used.c.expires_at,
        ),
    )
    .returning(RefreshToken.user_id, _seconds_left)
)
SELECT_STATE = select(
    RefreshToken.user_id,
    RefreshToken.family_id,
    _seconds_left,
    _is_live.label("is_live"),
    and_(
        RefreshToken.used_at > func.now() - timedelta(seconds=REPEAT_SECONDS),
        exists().where(
            _Successor.token_hash == bindparam("successor"), _Successor.used_at.is_(None)
        ),
    ).label("is_repeated"),
).where(_is_presented)
REVOKE = (
    update(RefreshToken)
    .where(_is_presented, RefreshToken.revoked_at.is_(None))
    .values(revoked_at=func.now())
    .returning(RefreshToken.user_id)
)


class Refreshed(NamedTuple):
    """A new refresh token, its user, and the seconds until its login expires."""

    user_id: UUID
    token: str
    seconds_left: int


def hash_of(token: str) -> bytes:
    """Return the hash under which a token is stored."""
    return hashlib.sha256(token.encode()).digest()


class RefreshTokens:
    """Issues, exchanges and revokes refresh tokens."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.token_key.get_secret_value().encode()
        self._lifetime = timedelta(days=settings.refresh_token_days)

    def successor(self, token: str) -> str:
        """Return the next token. It cannot be computed without the key, and is always the same.

        After a change of token_key it is another token, so a repeated request counts as a second
        use.
        """
        mac = hmac.digest(self._key, b"refresh-token:" + token.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    async def begin(self, database: Database, user_id: UUID) -> Refreshed:
        """Start a family for a login."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        values = {
            "hash": hash_of(token),
            "family_id": new_id(),
            "user_id": user_id,
            "lifetime": self._lifetime,
        }
        async with database.transaction() as connection:
            await connection.execute(BEGIN, values)
        return Refreshed(user_id, token, int(self._lifetime.total_seconds()))

    async def rotate(self, database: Database, presented: str) -> Refreshed | None:
        """Exchange a token for its successor; None if it is unknown, expired, revoked or used.

        A second use revokes the family. The exception: the last exchange is repeated within
        REPEAT_SECONDS and the successor is unused. Then the answer was lost, or a client sent two
        requests at the same time.
        """
        successor = self.successor(presented)
        hashes = {"presented": hash_of(presented), "successor": hash_of(successor)}
        async with database.transaction() as connection:
            rotated = (await connection.execute(ROTATE, hashes)).one_or_none()
            if rotated:
                return Refreshed(rotated.user_id, successor, rotated.seconds_left)
            token = (await connection.execute(SELECT_STATE, hashes)).one_or_none()
            if token is None or not token.is_live:
                return None
            if token.is_repeated:
                return Refreshed(token.user_id, successor, token.seconds_left)
            await connection.execute(REVOKE, {"presented": hashes["presented"]})
        logger.warning(
            "refresh token used twice, login revoked",
            extra={
                "action": "refresh_reused",
                "user_id": str(token.user_id),
                "family_id": str(token.family_id),
            },
        )
        return None

    async def revoke(self, database: Database, presented: str) -> UUID | None:
        """Revoke the family of a token, used or not; return its user, or None if it is unknown."""
        async with database.transaction() as connection:
            result = await connection.execute(REVOKE, {"presented": hash_of(presented)})
            return result.scalar_one_or_none()
