"""The dependencies that routes declare by type.

None of them lends a connection: a service borrows one only while it needs it.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.requests.errors import ApiError
from api.requests.tokens import Tokens
from api.storing.database import Database

bearer = HTTPBearer(auto_error=False, description="The access_token from POST /v1/users/login.")


async def get_database(request: Request) -> Database:
    """Return the pool of this process."""
    database: Database = request.app.state.database
    return database


async def get_user_id(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> UUID:
    """Return the user of the access token; raise ApiError 401 without a valid one."""
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


DatabaseDep = Annotated[Database, Depends(get_database)]
UserId = Annotated[UUID, Depends(get_user_id)]
