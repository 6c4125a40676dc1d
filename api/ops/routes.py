"""Routes under /ops. api/app.py adds them if there is a password; without Redis they answer 503."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.ops import service
from api.ops.dependencies import SESSION_COOKIE, OperatorDep, SessionId, SessionsDep
from api.ops.schemas import FailedJobList, OpsLogin, OpsSession
from api.requests.dependencies import DatabaseDep
from api.requests.errors import error_responses
from api.requests.limits import Claim, LimitsDep, RuleName, address_of

router = APIRouter(prefix="/ops", tags=["ops"], responses=error_responses(401, 503))
JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]  # Postgres bigint


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

    An earlier session of this browser ends.
    """
    await limits.check(request.scope, Claim(RuleName.OPS_LOGIN, address_of(request)))
    client = request.client.host if request.client else None
    session_id, session = await service.log_in(
        request.app.state.settings, sessions, login, earlier_id, client
    )
    # Without a lifetime, so the browser deletes the cookie when it is closed. The session itself
    # usually expires long before that.
    response.set_cookie(
        SESSION_COOKIE, session_id, path="/", secure=True, httponly=True, samesite="strict"
    )
    return service.describe(sessions, session)


@router.get("/session")
async def read_session(operator: OperatorDep, sessions: SessionsDep) -> OpsSession:
    """Return the operator, and the CSRF token for requests that change something."""
    return service.describe(sessions, operator)


@router.delete("/session", status_code=204, responses=error_responses(403))
async def log_out_operator(
    operator: OperatorDep, response: Response, sessions: SessionsDep, session_id: SessionId
) -> None:
    """Log out of the operations console."""
    await service.log_out(sessions, session_id or "", operator)
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict")


@router.get("/failed-jobs")
async def list_failed_jobs(
    _: OperatorDep,
    database: DatabaseDep,
    task: Annotated[str, Query(pattern="^[a-z_.]{0,128}$")] = "",
) -> FailedJobList:
    """Return at most 100 failed jobs, newest first, of all tasks or of one."""
    return await service.list_failed_jobs(database, task or None)


@router.post(
    "/failed-jobs/{job_id}/retry", status_code=204, responses=error_responses(403, 404, 409)
)
async def retry_failed_job(job_id: JobId, operator: OperatorDep, database: DatabaseDep) -> None:
    """Return a failed job to the queue, with all its attempts."""
    await service.retry_failed_job(database, operator, job_id)


@router.delete("/failed-jobs/{job_id}", status_code=204, responses=error_responses(403, 404))
async def discard_failed_job(job_id: JobId, operator: OperatorDep, database: DatabaseDep) -> None:
    """Delete a failed job."""
    await service.discard_failed_job(database, operator, job_id)
