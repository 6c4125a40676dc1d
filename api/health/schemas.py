"""The JSON of the health routes."""

from typing import Literal

from pydantic import BaseModel

from api.requests.errors import ErrorBody


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Check(BaseModel):
    """The result of a check, and how many milliseconds it took."""

    ok: bool
    ms: float
    error: str | None = None


class Ready(BaseModel):
    """The state of this process; a `degraded` process serves requests, but without Redis."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, Check]


class NotReady(Ready, ErrorBody):
    """The state of a process that cannot serve, in the form of an error."""


class Version(BaseModel):
    """The release that answers."""

    release: str
    slot: str
    migration_head: str
