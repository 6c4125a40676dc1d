"""The one form of every error: error, message, details, request_id, and nothing internal."""

import http.client
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import psycopg
import sqlalchemy.exc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api.observing import context

logger = logging.getLogger(__name__)

CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
MESSAGES = {
    404: "There is nothing at this address.",
    405: "This address does not support that method.",
    413: "The body is larger than this service accepts.",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
RETRY_AFTER = {"Retry-After": "1"}


def _header(description: str, kind: str, *, is_always_there: bool = True) -> dict[str, Any]:
    return {"description": description, "required": is_always_there, "schema": {"type": kind}}


_WAIT = _header("Seconds to wait before retrying.", "integer")
# The headers of an error, by its status.
HEADERS = {
    401: {
        "WWW-Authenticate": _header(
            "The authentication scheme to use.", "string", is_always_there=False
        )
    },
    409: {"Retry-After": {**_WAIT, "required": False}},
    412: {"ETag": _header("The current state of the resource.", "string")},
    429: {"Retry-After": _WAIT},
    503: {"Retry-After": _WAIT},
}


class FieldError(BaseModel):
    """A field of the request that is wrong, and why."""

    field: str
    message: str


class ErrorBody(BaseModel):
    """Every error of this API has this form."""

    error: str
    message: str
    details: list[FieldError] | dict[str, Any] | None
    request_id: str | None


class ApiError(HTTPException):
    """An error for the client, in the form of ErrorBody."""

    def __init__(
        self,
        status_code: int,
        error: str,
        message: str,
        details: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.error = error
        self.details = details


def error_fields(error: str, message: str, details: object = None) -> dict[str, Any]:
    """Return the fields of ErrorBody, with the id of the current request."""
    return {
        "error": error,
        "message": message,
        "details": details,
        "request_id": context.request_id.get(),
    }


def error_response(
    status_code: int,
    error: str,
    message: str,
    details: object = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error as a response, for code outside of the routes; routes raise ApiError."""
    body = json.dumps(error_fields(error, message, details)).encode()
    return Response(body, status_code, headers, media_type="application/json")


def internal_error_response() -> Response:
    """Return the answer to an error that no handler expects."""
    message = "The server failed; the request id identifies the failure in its logs."
    return error_response(500, "internal_error", message)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries for a route's own errors; openapi.py adds the common ones."""
    return {
        status: {
            "model": ErrorBody,
            "description": http.client.responses[status],
            "headers": HEADERS.get(status, {}),
        }
        for status in statuses
    }


def allowed_methods(request: Request) -> str:
    """Return the methods of all routes at an address; Starlette names only the first route's."""
    scopes = [(method, {**request.scope, "method": method}) for method in METHODS]
    routes = request.app.routes
    return ", ".join(
        method
        for method, scope in scopes
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


async def _http_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error_response(
            error.status_code, error.error, error.detail, error.details, error.headers
        )
    assert isinstance(error, HTTPException)  # noqa: S101  the handler is registered for this class
    status = error.status_code
    headers = {"Allow": allowed_methods(request)} if status == 405 else error.headers
    phrase = http.client.responses.get(status, "error")
    code = CODES.get(status) or re.sub(r"\W+", "_", phrase.lower())
    return error_response(status, code, MESSAGES.get(status, f"{phrase}."), headers=headers)


async def _invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  the handler is registered for this class
    # Only the location and the reason: `input` and `ctx` would return the caller's values.
    details = [
        {
            "field": ".".join(str(part) for part in item["loc"]),
            "message": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    return error_response(
        422, "validation_failed", "The request is not valid; see details.", details
    )


async def _database_error(_: Request, error: Exception) -> Response:
    if is_user_gone(error):
        return error_response(
            401,
            "not_authenticated",
            "The user of this token no longer exists.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not is_database_unavailable(error):
        logger.error("request failed", exc_info=error, extra={"action": "request_failed"})
        return internal_error_response()
    logger.warning(
        "database unavailable",
        extra={"action": "database_unavailable", "reason": type(error).__name__},
    )
    message = "The database is not available at the moment; retry."
    return error_response(503, "database_unavailable", message, headers=RETRY_AFTER)


def is_user_gone(error: BaseException) -> bool:
    """Tell whether a row was refused because its user does not exist.

    The user was deleted, or a restore to an earlier time lost it.
    """
    origin = getattr(error, "orig", error)
    if not isinstance(origin, psycopg.errors.ForeignKeyViolation):
        return False
    return str(origin.diag.constraint_name).endswith("_users")


def is_database_unavailable(error: BaseException) -> bool:
    """Tell whether an error is an outage and not a mistake in a statement.

    An outage is a refused or lost connection, no free connection in time, or a statement that
    exceeded its time limit.
    """
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return True
    if isinstance(error, psycopg.Error):  # from Database.fetch_one
        return isinstance(error, psycopg.OperationalError)
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError)
    return False


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of the routes the same form."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(sqlalchemy.exc.SQLAlchemyError, _database_error)
    app.add_exception_handler(psycopg.Error, _database_error)
