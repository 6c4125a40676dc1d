"""Routes under /v1/users."""

from typing import Any

from fastapi import APIRouter, Request

from api.requests.dependencies import DatabaseDep, UserId
from api.requests.errors import error_responses
from api.requests.limits import Claim, LimitsDep, RuleName, address_of
from api.users import service
from api.users.schemas import Login, NewUser, RefreshTokenIn, TokenPair, UserOut

router = APIRouter(prefix="/users", tags=["users"])


@router.post("", status_code=201, response_model=UserOut, responses=error_responses(409))
async def register(
    new: NewUser, request: Request, database: DatabaseDep, limits: LimitsDep
) -> dict[str, Any]:
    """Create an account. The password needs at least 12 characters."""
    await limits.check(request.scope, Claim(RuleName.REGISTRATION, address_of(request)))
    return await service.register(database, request.app.state.passwords, new)


@router.post("/login", responses=error_responses(401))
async def log_in(
    login: Login, request: Request, database: DatabaseDep, limits: LimitsDep
) -> TokenPair:
    """Exchange address and password for a short-lived access token and a refresh token."""
    address, state = address_of(request), request.app.state
    claims = (
        Claim(RuleName.LOGIN, f"{address} {login.email}"),
        Claim(RuleName.LOGIN_ADDRESS, address),
    )
    await limits.check(request.scope, *claims)
    return await service.log_in(
        database, state.passwords, state.tokens, state.refresh_tokens, login
    )


@router.post("/refresh", responses=error_responses(401))
async def refresh(
    body: RefreshTokenIn, request: Request, database: DatabaseDep, limits: LimitsDep
) -> TokenPair:
    """Exchange a refresh token for a new pair of tokens.

    A refresh token is valid for one exchange. If the answer was lost, repeat the request within
    30 seconds: you get the same refresh token again. Any other second use ends the whole login,
    because one of the two senders has stolen the token.
    """
    await limits.check(request.scope, Claim(RuleName.REFRESH, address_of(request)))
    state = request.app.state
    return await service.refresh(database, state.tokens, state.refresh_tokens, body.refresh_token)


@router.post("/logout", status_code=204, responses=error_responses())
async def log_out(body: RefreshTokenIn, request: Request, database: DatabaseDep) -> None:
    """End the login that a refresh token belongs to.

    The answer is the same for an unknown or expired token. Access tokens that were already issued
    stay valid until they expire.
    """
    await service.log_out(database, request.app.state.refresh_tokens, body.refresh_token)


@router.get("/me", response_model=UserOut, responses=error_responses(401))
async def read_me(user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return your account."""
    return await service.read_user(database, user_id)
