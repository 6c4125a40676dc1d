"""Routes under /ops; api/app.py leaves them out where no password is set. Without Redis they answer 503."""

from fastapi import APIRouter, Request, Response

from api.dependencies import SESSION_COOKIE, OperatorDep, SessionId, SessionsDep
from api.errors import error_responses
from api.limits import Asked, LimitsDep, RuleName, address_of
from api.ops import service
from api.ops.schemas import OpsLogin, OpsSession

router = APIRouter(prefix="/ops", tags=["ops"], responses=error_responses(401, 503))


@router.post("/session", status_code=201)
async def log_in_operator(
    login: OpsLogin,
    request: Request,
    response: Response,
    *,
    sessions: SessionsDep,
    earlier_id: SessionId,
    limits: LimitsDep,
) -> OpsSession:
    """Log in to the operations console; the answer sets the session's cookie.

    A session that this browser had before ends.
    """
    await limits.check(request.scope, Asked(RuleName.OPS_LOGIN, address_of(request)))
    client = request.client.host if request.client else None
    session_id, session = await service.log_in(request.app.state.settings, sessions, login, earlier_id, client)
    # No lifetime: the browser forgets it when it is closed, and the server long before that matters.
    response.set_cookie(SESSION_COOKIE, session_id, path="/", secure=True, httponly=True, samesite="strict")
    return service.describe(sessions, session)


@router.get("/session")
async def read_session(operator: OperatorDep, sessions: SessionsDep) -> OpsSession:
    """Return who is logged in, and the token that changing requests must carry."""
    return service.describe(sessions, operator)


@router.delete("/session", status_code=204, responses=error_responses(403))
async def log_out_operator(
    operator: OperatorDep, response: Response, sessions: SessionsDep, session_id: SessionId
) -> None:
    """Log out of the operations console."""
    await service.log_out(sessions, session_id or "", operator)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
