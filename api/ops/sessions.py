"""The operators' sessions, in Redis, where both slots find them: they outlive a deploy, and not a FLUSHALL.

A key is a hash of a session's id: whoever reads Redis cannot log in with what is there. The
console's password is in it, too, so that a new password ends every session. Without Redis there is
no console: every call fails closed, with 503 and Retry-After.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from api.configuring.settings import Settings
from api.requests.errors import RETRY_AFTER, ApiError
from api.storing.redis_client import GuardedRedis, RedisAway

ID_BYTES = 32  # cannot be guessed, so that a plain hash hides it

T = TypeVar("T")


class Session(BaseModel):
    """What Redis holds; another release may have written it, with fields more or less."""

    user: str
    csrf_token: str
    ends_at: int  # seconds since the epoch, whatever is done until then


class Sessions:
    def __init__(self, redis: GuardedRedis, settings: Settings) -> None:
        self._redis = redis
        self._password = (
            settings.ops_password.get_secret_value().encode() if settings.ops_password else b""
        )
        self.idle_seconds = settings.ops_session_idle_minutes * 60
        self._max_seconds = settings.ops_session_max_minutes * 60

    async def open(self, user: str) -> tuple[str, Session]:
        """Begin a session under an id of its own; return the id, which is kept nowhere else."""
        session_id = secrets.token_urlsafe(ID_BYTES)
        ends_at = int(time.time()) + self._max_seconds
        session = Session(user=user, csrf_token=secrets.token_urlsafe(ID_BYTES), ends_at=ends_at)
        key, stored = self._key(session_id), session.model_dump_json()
        await self._call(lambda: self._redis.client.set(key, stored, ex=self.idle_seconds))
        return session_id, session

    async def find(self, session_id: str) -> Session | None:
        """Return a session that is neither idle for too long nor over, and begin its idle time anew."""
        key = self._key(session_id)
        stored = await self._call(lambda: self._redis.client.getex(key, ex=self.idle_seconds))
        try:
            session = Session.model_validate_json(stored) if stored else None
        except ValidationError:
            return None
        return session if session and time.time() < session.ends_at else None

    async def close(self, session_id: str) -> None:
        await self._call(lambda: self._redis.client.delete(self._key(session_id)))

    def _key(self, session_id: str) -> str:
        return (
            f"ops:session:{hmac.digest(self._password, session_id.encode(), hashlib.sha256).hex()}"
        )

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._redis.call("sessions", command)
        except RedisAway:
            message = "The console's sessions cannot be reached at the moment; try again."
            raise ApiError(503, "console_unavailable", message, headers=RETRY_AFTER) from None
