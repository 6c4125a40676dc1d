"""What the health routes answer."""

from typing import Literal

from pydantic import BaseModel

from api.requests.errors import ErrorBody


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Check(BaseModel):
    ok: bool
    ms: float
    error: str | None = None


class Ready(BaseModel):
    """`degraded` still serves: the API works without Redis."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, Check]


class NotReady(Ready, ErrorBody):
    """An error that says as much as the good answer."""


class Version(BaseModel):
    release: str
    slot: str
    migration_head: str
