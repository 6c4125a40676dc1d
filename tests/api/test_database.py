"""Tests connections to a database that does not answer; the stack tests use a real one."""

import asyncio
import gc
from collections.abc import Iterator

import pytest
import sqlalchemy.exc

from api.storing.database import Database
from tests.api.settings_for_tests import make_settings


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection, as in a process that stays idle."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collection")
def test_a_connection_that_came_too_late_is_closed_and_not_left_to_chance() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1024):  # hangs until the client closes the connection
                pass
            gone.set()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            database = Database(make_settings(database_port=server.sockets[0].getsockname()[1]))
            with pytest.raises(sqlalchemy.exc.TimeoutError):
                await database.fetch_one("select 1", {})
            await asyncio.wait_for(gone.wait(), 20)

    asyncio.run(scenario())


def test_a_process_starts_without_a_database(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        database = Database(make_settings())
        await database.warm()
        await database.close()

    asyncio.run(scenario())
    assert [getattr(record, "action", "") for record in caplog.records] == ["pool_not_warm"]
