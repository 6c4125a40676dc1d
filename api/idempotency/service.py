"""Executes a POST once: key, change and answer are committed together. See docs/decisions/0007.

Use it only for routes that do nothing but write rows in the transaction that they receive.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import psycopg.errors
from fastapi import Depends, Header, Request, Response
from pydantic import AfterValidator, BaseModel
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy import bindparam, func, null, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.idempotency.models import KEEP_HOURS, KEY_CHARS, IdempotencyKey
from api.requests.dependencies import UserId
from api.requests.errors import ApiError
from api.storing.database import Database

KEY = f"^[!-~]{{1,{KEY_CHARS}}}$"  # visible ASCII
REPLAYED = {"Idempotency-Replayed": "true"}
REPLAYED_HEADER = {
    "Idempotency-Replayed": {
        "description": "Present, and true, if this is the stored answer to an earlier request with"
        " the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
Change = Callable[[AsyncConnection], Awaitable[Response]]

COLUMNS = IdempotencyKey.__table__.columns
NAMES = ("user_id", "route", "key", "fingerprint")
IS_EXPIRED = IdempotencyKey.created_at < func.now() - text(f"interval '{KEEP_HOURS} hours'")
_new = insert(IdempotencyKey).values(
    {name: bindparam(name, type_=COLUMNS[name].type) for name in NAMES}
)
# The statement waits for a transaction that has just written the same key. It overwrites an expired
# row that the worker has not deleted yet. It locks any other row and leaves it unchanged.
CLAIM = _new.on_conflict_do_update(
    index_elements=NAMES[:3],
    set_={
        "fingerprint": _new.excluded.fingerprint,
        "created_at": func.now(),
        **dict.fromkeys(("status_code", "headers", "body"), null()),
    },
    where=IS_EXPIRED,
).returning(IdempotencyKey.key)
_THIS = tuple(
    COLUMNS[name] == bindparam(f"this_{name}", type_=COLUMNS[name].type) for name in NAMES[:3]
)
STORED = select(
    *(COLUMNS[name] for name in ("fingerprint", "status_code", "headers", "body"))
).where(*_THIS)
STORE = (
    update(IdempotencyKey)
    .where(*_THIS)
    .values(
        {
            name: bindparam(name, type_=COLUMNS[name].type)
            for name in ("status_code", "headers", "body")
        }
    )
)


@dataclass(frozen=True)
class Once:
    """A request, and its idempotency key if the client sent one."""

    user_id: UUID
    route: str
    key: str | None
    fingerprint: bytes

    async def answer(self, database: Database, change: Change) -> Response:
        """Make the change, or return the stored answer; without a key, just make the change.

        An error stores nothing: the next request with the key may make the change.

        Raises:
            ApiError: 409 if another request with the key takes longer than the lock timeout; 422 if
                the key was used with another body.
        """
        async with database.transaction() as connection:
            if self.key is None:
                return await change(connection)
            if not await self._claim(connection):
                return await self._repeat(connection)
            response = await change(connection)
            values = {
                "status_code": response.status_code,
                "headers": dict(response.headers),
                "body": response.body,
            }
            await connection.execute(STORE, self._this() | values)
            return response

    def _this(self) -> dict[str, object]:
        return {"this_user_id": self.user_id, "this_route": self.route, "this_key": self.key}

    async def _claim(self, connection: AsyncConnection) -> bool:
        values = {name: getattr(self, name) for name in NAMES}
        try:
            return (await connection.execute(CLAIM, values)).first() is not None
        except OperationalError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                message = "Another request with this Idempotency-Key is still running; retry."
                raise ApiError(
                    409, "idempotency_key_in_use", message, headers={"Retry-After": "1"}
                ) from None
            raise

    async def _repeat(self, connection: AsyncConnection) -> Response:
        stored = (await connection.execute(STORED, self._this())).one()
        if stored.fingerprint != self.fingerprint:
            message = (
                "This Idempotency-Key was used with another body; use a new key for a new request."
            )
            raise ApiError(422, "idempotency_key_reused", message)
        return Response(stored.body, stored.status_code, stored.headers | REPLAYED)


def check_key(key: str | None) -> str | None:
    """Return the key; raise ValueError if its form is wrong."""
    if key is not None and not re.fullmatch(KEY, key):
        raise ValueError(
            f"must be 1 to {KEY_CHARS} visible ASCII characters, such as a random UUID"
        )
    return key


async def get_once(
    request: Request,
    user_id: UserId,
    idempotency_key: Annotated[
        str | SkipJsonSchema[None],
        AfterValidator(check_key),
        Header(
            alias="Idempotency-Key",
            json_schema_extra={"pattern": KEY},
            description="A random value: new for each request, the same if you repeat the request."
            f" A repeated request is not carried out twice: for {KEEP_HOURS} hours it gets the"
            " first"
            " answer. Errors are not stored.",
        ),
    ] = None,
) -> Once:
    """Return the request's key and its fingerprint."""
    # A hash of the bytes: the next release may parse more fields and would see another request.
    body = await request.body() if idempotency_key else b""
    route = f"{request.method} {request.url.path}"
    return Once(user_id, route, idempotency_key, hashlib.sha256(body).digest())


OnceDep = Annotated[Once, Depends(get_once)]


def json_answer(
    schema: type[BaseModel],
    row: Mapping[str, Any],
    status_code: int,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a row in its public form, as a response that `Once` can store."""
    body = schema.model_validate(row).model_dump_json()
    return Response(body, status_code, headers, media_type="application/json")
