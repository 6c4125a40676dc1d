"""The cost of idempotency for a request without a key; the stack tests cover the rest."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import pytest
from fastapi import Response

from api.idempotency.service import Once, check_key
from api.storing.database import Database


class SilentDatabase:
    """Opens a transaction in which no statement can run."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        yield object()


def test_a_request_without_a_key_adds_no_statement() -> None:
    made = Response(b"{}", 201)

    async def change(connection: object) -> Response:
        return made

    once = Once(uuid4(), "POST /v1/items", None, b"")
    assert asyncio.run(once.answer(cast(Database, SilentDatabase()), change)) is made


@pytest.mark.parametrize(
    "key", [None, "a", "x" * 255, "8e03978e-40d5-43e8-bc93-6894a57f9324", '"quoted"']
)
def test_a_key_may_be_any_visible_text(key: str | None) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\u00e4", "a\tb", "a\n"])
def test_another_key_is_refused_with_what_it_should_be(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 visible ASCII characters"):
        check_key(key)
