"""Access tokens: signed, short-lived, bound to an issuer and an audience. Nothing is stored."""

import time
from uuid import UUID

from jwt import InvalidTokenError, PyJWT

from api.settings import Settings

ALGORITHM = "HS256"
LEEWAY_SECONDS = 10  # chosen: clocks of two synchronised hosts differ by less
REQUIRED = ["sub", "iss", "aud", "exp", "iat"]


class Tokens:
    def __init__(self, settings: Settings) -> None:
        self.key = settings.token_key.get_secret_value()
        self.issuer = settings.token_issuer
        self.audience = settings.token_audience
        self.lifetime_seconds = settings.access_token_minutes * 60
        self._jwt = PyJWT(options={"enforce_minimum_key_length": True, "require": REQUIRED})

    def issue(self, user_id: UUID, now: float | None = None) -> str:
        """Return a token for the user; `now` is in seconds since the epoch."""
        issued_at = int(time.time() if now is None else now)
        claims = {
            "sub": str(user_id),
            "iss": self.issuer,
            "aud": self.audience,
            "iat": issued_at,
            "exp": issued_at + self.lifetime_seconds,
        }
        return self._jwt.encode(claims, self.key, algorithm=ALGORITHM)

    def user_id(self, token: str) -> UUID | None:
        """Return whom the token was issued to, or None for one that is not ours, not for us, or over."""
        try:
            claims = self._jwt.decode(
                token,
                self.key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY_SECONDS,
            )
            return UUID(claims["sub"])
        except (InvalidTokenError, ValueError):
            return None
