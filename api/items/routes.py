"""Routes under /v1/items."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from api.dependencies import DatabaseDep, UserId
from api.errors import error_responses
from api.items import service
from api.items.schemas import ItemIn, ItemOut, ItemPage

router = APIRouter(prefix="/items", tags=["items"], responses=error_responses(401))


@router.post("", status_code=201, response_model=ItemOut)
async def create_item(item: ItemIn, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Create an item of your own."""
    return await service.create_item(database, user_id, item)


@router.get("", response_model=ItemPage)
async def list_items(
    user_id: UserId,
    database: DatabaseDep,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Return your items, newest first, page by page."""
    return await service.list_items(database, user_id, cursor, limit)


@router.get("/{item_id}", response_model=ItemOut, responses=error_responses(404))
async def read_item(item_id: UUID, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Return one of your items."""
    return await service.read_item(database, user_id, item_id)


@router.put("/{item_id}", response_model=ItemOut, responses=error_responses(404))
async def replace_item(item_id: UUID, item: ItemIn, user_id: UserId, database: DatabaseDep) -> dict[str, Any]:
    """Replace one of your items; fields left out become null."""
    return await service.replace_item(database, user_id, item_id, item)


@router.delete("/{item_id}", status_code=204, responses=error_responses(404))
async def delete_item(item_id: UUID, user_id: UserId, database: DatabaseDep) -> None:
    """Delete one of your items."""
    await service.delete_item(database, user_id, item_id)
