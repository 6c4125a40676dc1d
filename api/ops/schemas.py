"""What the console sends and gets."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.requests.text import Text


class OpsLogin(BaseModel):
    user: Text = Field(min_length=1, max_length=64)
    password: Text = Field(min_length=1, max_length=256, repr=False)


class OpsSession(BaseModel):
    user: str
    csrf_token: str = Field(
        description="For the header X-CSRF-Token of every request that is not a GET."
    )
    ends_at: datetime = Field(description="The session ends then, however much it is used.")
    idle_seconds: int = Field(
        description="The session ends after so many seconds without a request."
    )


class FailedJobOut(BaseModel):
    id: int
    task_name: str
    attempts: int
    failed_at: datetime | None
    request_id: str | None = Field(
        description="Of the request that asked for the job; the logs have it."
    )
    arguments: dict[str, Any]


class FailedJobList(BaseModel):
    jobs: list[FailedJobOut]
