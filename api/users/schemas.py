"""What clients send and get about users."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from api.requests.text import Text

Email = Annotated[EmailStr, AfterValidator(str.lower)]


class NewUser(BaseModel):
    email: Email
    # The upper bound keeps a hash at its usual cost.
    password: Text = Field(min_length=12, max_length=256, repr=False)


class Login(BaseModel):
    email: Email
    password: Text = Field(min_length=1, max_length=256, repr=False)


class UserOut(BaseModel):
    id: UUID
    email: str
    created_at: datetime


class RefreshTokenIn(BaseModel):
    refresh_token: Text = Field(min_length=1, max_length=128, repr=False)


class TokenPair(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  the name of a scheme
    expires_in: int = Field(description="Seconds until the access token is refused.")
    refresh_token: str = Field(
        description="For POST /v1/users/refresh, once; its answer holds the next one."
    )
    refresh_expires_in: int = Field(
        description="Seconds until a new login is needed, however often it was refreshed."
    )
