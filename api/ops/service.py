"""Login to the operations console, which one user shares."""

import hashlib
import hmac
import logging
from datetime import UTC, datetime

from api.errors import ApiError
from api.ops.schemas import OpsLogin, OpsSession
from api.ops.sessions import Session, Sessions
from api.settings import Settings

logger = logging.getLogger(__name__)


def fits(given: str, expected: str) -> bool:
    """Compare in a time that depends on neither text; their hashes, because lengths may differ."""
    digests = (hashlib.sha256(text.encode()).digest() for text in (given, expected))
    return hmac.compare_digest(*digests)


async def log_in(
    settings: Settings, sessions: Sessions, login: OpsLogin, earlier_id: str | None, client: str | None
) -> tuple[str, Session]:
    """Return a session under a new id; one that this browser had before ends."""
    password = settings.ops_password.get_secret_value() if settings.ops_password else ""
    # Both are compared in any case: the time must not tell which one was wrong.
    is_user, is_password = fits(login.user, settings.ops_user), fits(login.password, password)
    if not (is_user and is_password and password):
        logger.warning("console login failed", extra={"action": "ops_login_failed", "client": client})
        raise ApiError(401, "login_failed", "The user or the password is wrong.")
    if earlier_id:
        await sessions.close(earlier_id)
    session_id, session = await sessions.open(settings.ops_user)
    logger.info("operator logged in", extra={"action": "ops_logged_in", "operator": session.user, "client": client})
    return session_id, session


async def log_out(sessions: Sessions, session_id: str, session: Session) -> None:
    await sessions.close(session_id)
    logger.info("operator logged out", extra={"action": "ops_logged_out", "operator": session.user})


def describe(sessions: Sessions, session: Session) -> OpsSession:
    return OpsSession(
        user=session.user,
        csrf_token=session.csrf_token,
        ends_at=datetime.fromtimestamp(session.ends_at, UTC),
        idle_seconds=sessions.idle_seconds,
    )
