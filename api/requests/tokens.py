"""Access tokens: signed, short-lived, bound to an issuer and an audience. Nothing is stored.

What was verified once is remembered in the process until it is over: the check takes as long as a row from Postgres.

To rotate the key with no token refused, hand the new key out before it signs: in token_key_previous first, then with
the two exchanged, and token_key_previous empty again once the last token of the old key is over.
"""

import hashlib
import time
from uuid import UUID

from jwt import InvalidTokenError, PyJWT

from api.configuring.settings import Settings

ALGORITHM = "HS256"
MOST_KNOWN = 2000  # tokens that a process remembers: about 0.6 kB each
LEEWAY_SECONDS = 10  # chosen: clocks of two synchronised hosts differ by less
REQUIRED = ["sub", "iss", "aud", "exp", "iat"]


def key_id(key: str) -> str:
    """Return the name of a key: 32 bits of its hash, which tell two keys apart and tell nothing of either."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Tokens:
    def __init__(self, settings: Settings) -> None:
        self.key = settings.token_key.get_secret_value()
        self.issuer = settings.token_issuer
        self.audience = settings.token_audience
        self.lifetime_seconds = settings.access_token_minutes * 60
        self._jwt = PyJWT(options={"enforce_minimum_key_length": True, "require": REQUIRED})
        self._known: dict[str, tuple[UUID, float]] = {}  # with the second at which it is over
        self._headers = {"kid": key_id(self.key)}
        previous = settings.token_key_previous
        self._previous_key = previous.get_secret_value() if previous else ""
        self.key_ids = [key_id(key) for key in (self.key, self._previous_key) if key]
        # What every token of that key begins with: comparing it is cheaper than reading the header twice.
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
        """Return whom the token was issued to, or None for one that is not ours, not for us, or over."""
        user_id, over_at = self._known.get(token, (None, 0))
        return user_id if time.time() < over_at else self._verify(token)

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
            del self._known[next(iter(self._known))]  # the one that was verified first
        self._known[token] = (user_id, claims["exp"] + LEEWAY_SECONDS)
        return user_id

    def _start(self, key: str) -> str:
        return (
            self._jwt.encode({}, key, algorithm=ALGORITHM, headers={"kid": key_id(key)}).partition(
                "."
            )[0]
            + "."
        )
