"""Access tokens: signed, short-lived, bound to an issuer and an audience. None is stored.

A process remembers the tokens that it has verified until they expire: verifying one takes as long
as reading a row from Postgres.

To rotate the key without refusing a token: put the new key into token_key_previous and deploy;
exchange the two keys and deploy; empty token_key_previous when the last token of the old key has
expired. That way every process can verify the new key's tokens before any process issues one.
"""

import hashlib
import time
from uuid import UUID

from jwt import InvalidTokenError, PyJWT

from api.configuring.settings import Settings

ALGORITHM = "HS256"
MOST_KNOWN = 2000  # tokens that a process remembers: about 0.6 kB each
LEEWAY_SECONDS = 10  # chosen: the clocks of two synchronised hosts differ by less
REQUIRED = ["sub", "iss", "aud", "exp", "iat"]


def key_id(key: str) -> str:
    """Return the name of a key: 32 bits of its hash, which reveal nothing about the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Tokens:
    """Issues and verifies access tokens."""

    def __init__(self, settings: Settings) -> None:
        self.key = settings.token_key.get_secret_value()
        self.issuer = settings.token_issuer
        self.audience = settings.token_audience
        self.lifetime_seconds = settings.access_token_minutes * 60
        self._jwt = PyJWT(options={"enforce_minimum_key_length": True, "require": REQUIRED})
        # The user of a verified token, and the second since the epoch at which it expires.
        self._known: dict[str, tuple[UUID, float]] = {}
        self._headers = {"kid": key_id(self.key)}
        previous = settings.token_key_previous
        self._previous_key = previous.get_secret_value() if previous else ""
        self.key_ids = [key_id(key) for key in (self.key, self._previous_key) if key]
        # The beginning of every token of that key: comparing it is cheaper than parsing the header.
        self._previous_start = self._start(self._previous_key) if previous else None

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
        return self._jwt.encode(claims, self.key, algorithm=ALGORITHM, headers=self._headers)

    def user_id(self, token: str) -> UUID | None:
        """Return the token's user, or None if it is expired, forged or for another audience."""
        user_id, expires_at = self._known.get(token, (None, 0))
        return user_id if time.time() < expires_at else self._verify(token)

    def _verify(self, token: str) -> UUID | None:
        self._known.pop(token, None)
        is_previous = self._previous_start is not None and token.startswith(self._previous_start)
        try:
            claims = self._jwt.decode(
                token,
                self._previous_key if is_previous else self.key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY_SECONDS,
            )
            user_id = UUID(claims["sub"])
        except (InvalidTokenError, ValueError):
            return None
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]  # the token that was verified first
        self._known[token] = (user_id, claims["exp"] + LEEWAY_SECONDS)
        return user_id

    def _start(self, key: str) -> str:
        token = self._jwt.encode({}, key, algorithm=ALGORITHM, headers={"kid": key_id(key)})
        return token.partition(".")[0] + "."
