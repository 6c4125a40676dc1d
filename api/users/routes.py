"""Routes under /v1/users."""

from typing import Any

from fastapi import APIRouter, Request

from api.dependencies import DatabaseDep, UserId
from api.errors import error_responses
from api.limits import Asked, LimitsDep, RuleName, address_of
from api.users import service
from api.users.schemas import AccessToken, Login, NewUser, UserOut

router = APIRouter(prefix="/users", tags=["users"])


@router.post("", status_code=201, response_model=UserOut, responses=error_responses(409))
async def register(new: NewUser, request: Request, database: DatabaseDep, limits: LimitsDep) -> dict[str, Any]:
    """Create an account. The password needs at least 12 characters."""
    await limits.check(request.scope, Asked(RuleName.REGISTRATION, address_of(request)))
    return await service.register(database, request.app.state.passwords, new)


@router.post("/login", responses=error_responses(401))
async def log_in(login: Login, request: Request, database: DatabaseDep, limits: LimitsDep) -> AccessToken:
    """Exchange address and password for a short-lived access token."""
    address = address_of(request)
    asked = Asked(RuleName.LOGIN, f"{address} {login.email}"), Asked(RuleName.LOGIN_ADDRESS, address)
    await limits.check(request.scope, *asked)
    return await service.log_in(database, request.app.state.passwords, request.app.state.tokens, login)


@router.get("/me", response_model=UserOut, responses=error_responses(401))
async def read_me(user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return the account that the token belongs to."""
    return await service.read_user(database, user_id)
