"""Routes under /v1/items, and /v1/item-summary."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection

from api.idempotency.service import REPLAYED_HEADER, OnceDep, json_answer
from api.items import etags, service
from api.items.schemas import ItemIn, ItemOut, ItemPage, ItemSummary
from api.requests.cursors import CURSOR
from api.requests.dependencies import DatabaseDep, UserId
from api.requests.errors import error_responses
from api.requests.limits import RuleName, per_user
from api.storing.cache import Cache

router = APIRouter(tags=["items"], responses=error_responses(401))
COUNTED = [per_user(RuleName.USER)]
# Only described here; the route reads the header itself. As a declared parameter of FastAPI, the
# header would cost each read 20 us.
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags. If the item still has one of them, the answer is 304 without a body.",
    "schema": {"type": "string"},
}
ETAG = {
    "ETag": {
        "required": True,
        "description": "Identifies this state of the item.",
        "schema": {"type": "string"},
    }
}
WITH_ETAG: dict[str, Any] = {"headers": ETAG}
CREATED: dict[str, Any] = {"headers": ETAG | REPLAYED_HEADER}
NOT_MODIFIED: dict[str, Any] = {"headers": ETAG, "description": "Not Modified"}
# Only the client itself may cache the response, and must revalidate it before each use.
REVALIDATED = {"Cache-Control": "private, no-cache"}


async def get_states(
    if_match: Annotated[
        str | SkipJsonSchema[None],
        AfterValidator(etags.check_condition),
        Header(
            alias="If-Match",
            json_schema_extra={"pattern": etags.CONDITION},
            description="ETags. The change is made only if the item has one of them; without this"
            " header it is always made.",
        ),
    ] = None,
) -> list[datetime] | None:
    """Return the states that If-Match accepts, or None for any."""
    return etags.states(if_match)


States = Annotated[list[datetime] | None, Depends(get_states)]


def get_summaries(request: Request) -> Cache:
    """Return the cache of summaries, by user."""
    cache: Cache = request.app.state.item_summaries
    return cache


Summaries = Annotated[Cache, Depends(get_summaries)]


@router.post(
    "/items",
    status_code=201,
    response_model=ItemOut,
    responses={201: CREATED, **error_responses(409)},
    dependencies=COUNTED,
)
async def create_item(
    item: ItemIn, *, user_id: UserId, once: OnceDep, database: DatabaseDep, summaries: Summaries
) -> Response:
    """Create an item."""

    async def create(connection: AsyncConnection) -> Response:
        row = await service.create_item(connection, user_id, item)
        return json_answer(ItemOut, row, 201, {"ETag": etags.etag(row)})

    answer = await once.answer(database, create)
    await summaries.forget(str(user_id))
    return answer


@router.get("/items", response_model=ItemPage, dependencies=COUNTED)
async def list_items(
    user_id: UserId,
    database: DatabaseDep,
    cursor: Annotated[
        str | SkipJsonSchema[None], Query(json_schema_extra={"pattern": CURSOR})
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Return your items, newest first, page by page.

    Items created or deleted while you page cause neither duplicates nor gaps.
    """
    return await service.list_items(database, user_id, cursor, limit)


@router.get("/item-summary", response_model=ItemSummary, dependencies=COUNTED)
async def summarize_items(user_id: UserId, database: DatabaseDep, summaries: Summaries) -> Response:
    """Return the number of your items and the sum of their prices."""
    summary = await summaries.get(str(user_id), lambda: service.summarize_items(database, user_id))
    return Response(summary, media_type="application/json")


@router.get(
    "/items/{item_id}",
    response_model=ItemOut,
    responses={200: WITH_ETAG, 304: NOT_MODIFIED, **error_responses(404)},
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def read_item(
    item_id: UUID, request: Request, user_id: UserId, database: DatabaseDep
) -> Response:
    """Return an item of yours, with its ETag."""
    row = await service.read_item(database, user_id, item_id)
    headers = REVALIDATED | {"ETag": etags.etag(row)}
    if etags.is_listed(headers["ETag"], request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return json_answer(ItemOut, row, 200, headers)


@router.put(
    "/items/{item_id}",
    response_model=ItemOut,
    responses={200: WITH_ETAG, **error_responses(404, 412)},
    dependencies=COUNTED,
)
async def replace_item(
    item_id: UUID,
    item: ItemIn,
    *,
    response: Response,
    states: States,
    user_id: UserId,
    database: DatabaseDep,
    summaries: Summaries,
) -> dict[str, Any]:
    """Replace an item of yours; a field that you leave out becomes null.

    With `If-Match` you overwrite no other change: if the item has changed since you read it, the
    answer is 412 with the current ETag.
    """
    row = await service.replace_item(database, user_id, item_id, item, states)
    await summaries.forget(str(user_id))
    response.headers["ETag"] = etags.etag(row)
    return row


@router.delete(
    "/items/{item_id}", status_code=204, responses=error_responses(404, 412), dependencies=COUNTED
)
async def delete_item(
    item_id: UUID, *, states: States, user_id: UserId, database: DatabaseDep, summaries: Summaries
) -> None:
    """Delete an item of yours; with `If-Match`, only if it has not changed since you read it."""
    await service.delete_item(database, user_id, item_id, states)
    await summaries.forget(str(user_id))
