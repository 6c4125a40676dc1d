"""Refresh tokens: opaque, good for one exchange; Postgres holds their hashes alone."""

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

TOKEN_BYTES = 32  # 256 bits cannot be guessed, so that their hash needs neither salt nor slowness
# Above nginx's proxy_read_timeout (20 s): whoever waited for the answer in vain may repeat. Short,
# because a thief who is that quick gets the token that its owner got, and is noticed only when the
# second of them uses it.
REPEAT_SECONDS = 30

_Relative = aliased(RefreshToken)
_Successor = aliased(RefreshToken)
_is_presented = RefreshToken.token_hash == bindparam("presented")
_is_live = and_(
    RefreshToken.expires_at > func.now(),
    # The row's own column, too: it alone is read again after waiting for a revocation of this row.
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
# One statement: of two at once, the second waits for the first one's row and then finds it used.
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
LOOK = select(
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
    user_id: UUID
    token: str
    seconds_left: int


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class RefreshTokens:
    def __init__(self, settings: Settings) -> None:
        self._key = settings.token_key.get_secret_value().encode()
        self._lifetime = timedelta(days=settings.refresh_token_days)

    def successor(self, token: str) -> str:
        """Return the token that follows: nobody can know it without the key, and a repeat leads to the same one.

        A repeat across a change of token_key leads to another one, and so counts as a second use.
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
        """Exchange a token for its successor; None for one that is unknown, over, revoked or used before.

        A second use revokes the family, unless it repeats the last exchange within REPEAT_SECONDS
        and the successor was not used: then the answer was lost, or two requests of one client met.
        """
        successor = self.successor(presented)
        hashes = {"presented": hash_of(presented), "successor": hash_of(successor)}
        async with database.transaction() as connection:
            rotated = (await connection.execute(ROTATE, hashes)).one_or_none()
            if rotated:
                return Refreshed(rotated.user_id, successor, rotated.seconds_left)
            seen = (await connection.execute(LOOK, hashes)).one_or_none()
            if seen is None or not seen.is_live:
                return None
            if seen.is_repeated:
                return Refreshed(seen.user_id, successor, seen.seconds_left)
            await connection.execute(REVOKE, {"presented": hashes["presented"]})
        logger.warning(
            "refresh token used twice, its login ended",
            extra={
                "action": "refresh_reused",
                "user_id": str(seen.user_id),
                "family_id": str(seen.family_id),
            },
        )
        return None

    async def revoke(self, database: Database, presented: str) -> UUID | None:
        """End the family of a token, used or not; return whose it was, None for an unknown one."""
        async with database.transaction() as connection:
            result = await connection.execute(REVOKE, {"presented": hash_of(presented)})
            return result.scalar_one_or_none()
