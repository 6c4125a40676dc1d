"""The JSON of the console, as it sends and gets it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.requests.text import Text


class OpsLogin(BaseModel):
    """The operator's credentials."""

    user: Text = Field(min_length=1, max_length=64)
    password: Text = Field(min_length=1, max_length=256, repr=False)


class OpsSession(BaseModel):
    """A session of the operator."""

    user: str
    csrf_token: str = Field(
        description="Send it as the header X-CSRF-Token of every request that is not a GET."
    )
    ends_at: datetime = Field(description="The session ends at this time, even if it is in use.")
    idle_seconds: int = Field(
        description="The session ends after this many seconds without a request."
    )


class FailedJobOut(BaseModel):
    """A job that used up its attempts."""

    id: int
    task_name: str
    attempts: int
    failed_at: datetime | None
    request_id: str | None = Field(
        description="The id of the request that enqueued the job, as in the logs."
    )
    arguments: dict[str, Any]


class FailedJobList(BaseModel):
    """Failed jobs, newest first."""

    jobs: list[FailedJobOut]
