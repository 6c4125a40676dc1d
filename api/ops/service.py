"""The operations console, which all operators share: login, and the failed jobs."""

import hashlib
import hmac
import logging
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from api.configuring.settings import Settings
from api.ops.schemas import FailedJobList, FailedJobOut, OpsLogin, OpsSession
from api.ops.sessions import Session, Sessions
from api.requests.errors import ApiError
from api.storing import jobs
from api.storing.database import Database

logger = logging.getLogger(__name__)


def fits(typed: str, expected: str) -> bool:
    """Compare two texts in constant time, by their hashes, which have the same length."""
    digests = (hashlib.sha256(text.encode()).digest() for text in (typed, expected))
    return hmac.compare_digest(*digests)


async def log_in(
    settings: Settings,
    sessions: Sessions,
    login: OpsLogin,
    earlier_id: str | None,
    client: str | None,
) -> tuple[str, Session]:
    """Return the id of a new session and the session; the browser's earlier session ends.

    Raises:
        ApiError: 401 for a wrong user or password.
    """
    password = settings.ops_password.get_secret_value() if settings.ops_password else ""
    # Both are always compared: the time must not reveal which of them was wrong.
    is_user, is_password = fits(login.user, settings.ops_user), fits(login.password, password)
    if not (is_user and is_password and password):
        logger.warning(
            "console login failed", extra={"action": "ops_login_failed", "client": client}
        )
        raise ApiError(401, "login_failed", "The user or the password is wrong.")
    if earlier_id:
        await sessions.close(earlier_id)
    session_id, session = await sessions.open(settings.ops_user)
    logger.info(
        "operator logged in",
        extra={"action": "ops_logged_in", "operator": session.user, "client": client},
    )
    return session_id, session


async def log_out(sessions: Sessions, session_id: str, session: Session) -> None:
    """End a session."""
    await sessions.close(session_id)
    logger.info("operator logged out", extra={"action": "ops_logged_out", "operator": session.user})


def describe(sessions: Sessions, session: Session) -> OpsSession:
    """Return the public form of a session."""
    return OpsSession(
        user=session.user,
        csrf_token=session.csrf_token,
        ends_at=datetime.fromtimestamp(session.ends_at, UTC),
        idle_seconds=sessions.idle_seconds,
    )


def not_failed() -> ApiError:
    """Return the error for a job that does not exist or has not failed."""
    return ApiError(404, "job_not_failed", "There is no failed job with this id.")


async def list_failed_jobs(database: Database, task: str | None) -> FailedJobList:
    """Return the failed jobs of a task, or of all."""
    async with database.read() as connection:
        failed = await jobs.list_failed(connection, task)
    return FailedJobList(jobs=[FailedJobOut(**asdict(job)) for job in failed])


async def retry_failed_job(database: Database, operator: Session, job_id: int) -> None:
    """Return a failed job to the queue; raise ApiError 404 or 409 if that is not possible."""
    try:
        async with database.transaction() as connection:
            is_back = await jobs.retry_failed(connection, [job_id])
    except jobs.JobNotFailed:
        raise not_failed() from None
    except IntegrityError:  # a job with the same lock was enqueued at this moment
        is_back = []
    if not is_back:
        raise ApiError(
            409, "job_waits_already", "A job like this one already waits, and will do the work."
        )
    logger.info(
        "job retried",
        extra={"action": "ops_job_retried", "operator": operator.user, "job_id": job_id},
    )


async def discard_failed_job(database: Database, operator: Session, job_id: int) -> None:
    """Delete a failed job; raise ApiError 404 if it has not failed."""
    try:
        async with database.transaction() as connection:
            await jobs.discard_failed(connection, [job_id])
    except jobs.JobNotFailed:
        raise not_failed() from None
    logger.info(
        "job discarded",
        extra={"action": "ops_job_discarded", "operator": operator.user, "job_id": job_id},
    )
