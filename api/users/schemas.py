"""The JSON of users and logins, as clients send and get it."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from api.requests.text import Text

Email = Annotated[EmailStr, AfterValidator(str.lower)]


class NewUser(BaseModel):
    """A registration."""

    email: Email
    # The upper bound limits the cost of a hash.
    password: Text = Field(min_length=12, max_length=256, repr=False)


class Login(BaseModel):
    """The credentials of a login."""

    email: Email
    password: Text = Field(min_length=1, max_length=256, repr=False)


class UserOut(BaseModel):
    """An account."""

    id: UUID
    email: str
    created_at: datetime


class RefreshTokenIn(BaseModel):
    """A refresh token to exchange or to revoke."""

    refresh_token: Text = Field(min_length=1, max_length=128, repr=False)


class TokenPair(BaseModel):
    """An access token, and the refresh token for the next pair."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  the name of a scheme
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(
        description="Valid for one POST /v1/users/refresh, whose answer has the next token."
    )
    refresh_expires_in: int = Field(
        description="Seconds until the login expires; refreshing does not extend it."
    )
