"""The dependencies of the console's routes: the sessions, and the operator who is logged in."""

import hmac
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyCookie

from api.ops.sessions import Session, Sessions
from api.requests.errors import ApiError

# (!) Browsers accept this prefix over TLS only, and send it to this host only (RFC 6265bis).
SESSION_COOKIE = "__Host-slipway_ops"
READING_METHODS = frozenset({"GET", "HEAD"})

session_cookie = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, description="Set by POST /ops/session."
)


async def get_sessions(request: Request) -> Sessions:
    """Return the sessions of the console."""
    sessions: Sessions = request.app.state.sessions
    return sessions


SessionId = Annotated[str | None, Depends(session_cookie)]
SessionsDep = Annotated[Sessions, Depends(get_sessions)]


async def get_operator(
    request: Request,
    sessions: SessionsDep,
    session_id: SessionId,
    csrf_token: Annotated[
        str,
        Header(
            alias="X-CSRF-Token",
            description="The csrf_token from GET /ops/session; a GET does not need it.",
        ),
    ] = "",
) -> Session:
    """Return the operator's session.

    Every method but GET and HEAD needs the CSRF token, so that no route can forget it.

    Raises:
        ApiError: 401 without a session, 403 without the CSRF token.
    """
    session = await sessions.find(session_id) if session_id else None
    if session is None:
        raise ApiError(401, "not_logged_in", "Log in to the console first.")
    is_sent_by_the_console = hmac.compare_digest(csrf_token.encode(), session.csrf_token.encode())
    if request.method not in READING_METHODS and not is_sent_by_the_console:
        raise ApiError(
            403,
            "csrf_failed",
            "The header X-CSRF-Token must hold the csrf_token of GET /ops/session.",
        )
    return session


OperatorDep = Annotated[Session, Depends(get_operator)]
