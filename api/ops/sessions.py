"""The operators' sessions, in Redis: both slots share them, and they survive a deploy.

A key is a hash of the session's id, so the content of Redis is not enough to log in. The hash
includes the console's password, so a new password ends every session. Without Redis there is no
console: every call answers 503 with Retry-After.
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

ID_BYTES = 32  # cannot be guessed, so a plain hash protects it

T = TypeVar("T")


class Session(BaseModel):
    """A session, as it is stored; another release may have written it, with other fields."""

    user: str
    csrf_token: str
    ends_at: int  # seconds since the epoch; use does not extend it


class Sessions:
    """Opens, finds and closes sessions."""

    def __init__(self, redis: GuardedRedis, settings: Settings) -> None:
        self._redis = redis
        self._password = (
            settings.ops_password.get_secret_value().encode() if settings.ops_password else b""
        )
        self.idle_seconds = settings.ops_session_idle_minutes * 60
        self._max_seconds = settings.ops_session_max_minutes * 60

    async def open(self, user: str) -> tuple[str, Session]:
        """Store a new session; return its id, which is stored nowhere, and the session."""
        session_id = secrets.token_urlsafe(ID_BYTES)
        ends_at = int(time.time()) + self._max_seconds
        session = Session(user=user, csrf_token=secrets.token_urlsafe(ID_BYTES), ends_at=ends_at)
        key, stored = self._key(session_id), session.model_dump_json()
        await self._call(lambda: self._redis.client.set(key, stored, ex=self.idle_seconds))
        return session_id, session

    async def find(self, session_id: str) -> Session | None:
        """Return a session and restart its idle time; None if it is unknown or has expired."""
        key = self._key(session_id)
        stored = await self._call(lambda: self._redis.client.getex(key, ex=self.idle_seconds))
        try:
            session = Session.model_validate_json(stored) if stored else None
        except ValidationError:
            return None
        return session if session and time.time() < session.ends_at else None

    async def close(self, session_id: str) -> None:
        """Delete a session."""
        await self._call(lambda: self._redis.client.delete(self._key(session_id)))

    def _key(self, session_id: str) -> str:
        return (
            f"ops:session:{hmac.digest(self._password, session_id.encode(), hashlib.sha256).hex()}"
        )

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._redis.call("sessions", command)
        except RedisAway:
            message = "The console's sessions are not available at the moment; retry."
            raise ApiError(503, "console_unavailable", message, headers=RETRY_AFTER) from None
