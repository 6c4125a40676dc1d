"""What routes ask for by type. Lends no connection: a service takes one only while it needs it."""

import hmac
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from api.database import Database
from api.errors import ApiError
from api.ops.sessions import Session, Sessions
from api.tokens import Tokens

# (!) The prefix makes browsers take it over TLS from this very host only, and send it nowhere else (RFC 6265bis).
SESSION_COOKIE = "__Host-slipway_ops"
READING_METHODS = frozenset({"GET", "HEAD"})

session_cookie = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, description="Set by POST /ops/session."
)
bearer = HTTPBearer(auto_error=False, description="The access_token of POST /v1/users/login.")


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_user_id(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> UUID:
    tokens: Tokens = request.app.state.tokens
    user_id = tokens.user_id(credentials.credentials) if credentials else None
    if user_id is None:
        raise ApiError(
            401,
            "not_authenticated",
            "A valid access token is required.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return user_id


async def get_sessions(request: Request) -> Sessions:
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
            description="The csrf_token of GET /ops/session; not needed for a GET.",
        ),
    ] = "",
) -> Session:
    """Return who is logged in. Whatever is not a reading request needs the CSRF token: no route can forget it."""
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


DatabaseDep = Annotated[Database, Depends(get_database)]
UserId = Annotated[UUID, Depends(get_user_id)]
OperatorDep = Annotated[Session, Depends(get_operator)]
