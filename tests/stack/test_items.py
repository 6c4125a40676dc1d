"""Items through the front door: conditional requests, and pages without gaps or duplicates."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise

import httpx2
import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack

pytestmark = pytest.mark.stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.client(headers={"Authorization": f"Bearer {stack.token()}"}, timeout=30) as client:
        yield client


def make_item(client: httpx2.Client, name: str = "anchor") -> tuple[str, str]:
    """Return the path and the ETag of a new item."""
    made = client.post("/v1/items", json={"name": name})
    assert made.status_code == 201, made.text
    return f"/v1/items/{made.json()['id']}", made.headers["etag"]


def test_a_read_with_the_known_etag_has_no_body(client: httpx2.Client) -> None:
    path, tag = make_item(client)
    read = client.get(path)
    assert (read.status_code, read.headers["etag"], read.headers["cache-control"]) == (
        200,
        tag,
        "private, no-cache",
    )
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = client.get(path, headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (
            304,
            b"",
            tag,
        )
    replaced = client.put(path, json={"name": "rope"})
    assert replaced.headers["etag"] != tag
    changed = client.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["name"]) == (200, "rope")
    assert changed.headers["etag"] == replaced.headers["etag"]


def test_a_change_is_made_only_in_a_state_that_if_match_names(client: httpx2.Client) -> None:
    path, tag = make_item(client)
    for refused in ('"other"', f"W/{tag}"):
        answer = client.put(path, json={"name": "lost"}, headers={"If-Match": refused})
        assert (answer.status_code, answer.json()["error"], answer.headers["etag"]) == (
            412,
            "item_changed",
            tag,
        )
        assert client.delete(path, headers={"If-Match": refused}).status_code == 412
    assert client.get(path).json()["name"] == "anchor"
    second = client.put(path, json={"name": "rope"}, headers={"If-Match": f'"other", {tag}'})
    assert second.status_code == 200
    lines = [("If-Match", '"other"'), ("If-Match", second.headers["etag"])]
    twice = client.put(path, json={"name": "lost"}, headers=lines)
    assert (twice.status_code, twice.json()["error"]) == (400, "bad_request"), (
        "the API accepts a single If-Match line"
    )
    third = client.put(path, json={"name": "chain"}, headers={"If-Match": second.headers["etag"]})
    assert third.status_code == 200
    assert (
        client.put(path, json={"name": "lost"}, headers={"If-Match": "no tag"}).status_code == 422
    )
    for condition in ({}, {"If-Match": "*"}):
        assert client.put(path, json={"name": "sail"}, headers=condition).status_code == 200
    assert client.delete(path, headers={"If-Match": third.headers["etag"]}).status_code == 412
    assert (
        client.delete(path, headers={"If-Match": client.get(path).headers["etag"]}).status_code
        == 204
    )
    assert client.put(path, json={"name": "late"}, headers={"If-Match": "*"}).status_code == 404


@pytest.mark.alone  # each request waits at most 2 s for the lock
def test_no_update_is_lost_among_twenty_clients(client: httpx2.Client, figure: Figure) -> None:
    """Each client increments the value it has read, and reads again after a 412."""
    path, _ = make_item(client, "0")

    def add_one(_: int) -> int:
        for attempt in range(1000):
            read = client.get(path)
            name = str(int(read.json()["name"]) + 1)
            answer = client.put(
                path, json={"name": name}, headers={"If-Match": read.headers["etag"]}
            )
            if answer.status_code == 200:
                return attempt
            assert answer.status_code == 412, answer.text
        raise AssertionError("1000 attempts were refused with 412")

    with ThreadPoolExecutor(20) as threads:
        refused = sum(threads.map(add_one, range(60)))
    assert client.get(path).json()["name"] == "60"
    assert refused > 0, "no two clients changed the item at once"
    figure(f"60 changes by 20 clients to one item: {refused} refused with 412 and repeated, 0 lost")


def test_what_the_release_before_writes_changes_the_etag(
    stack: Stack, client: httpx2.Client
) -> None:
    """The previous release has no ETags; it runs the statement below."""
    path, tag = make_item(client)
    item = path.rpartition("/")[2]
    stack.sql(
        f"update items set name = 'by the other slot', updated_at = now() where id = '{item}'"
    )
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200
    assert client.put(path, json={"name": "lost"}, headers={"If-Match": tag}).status_code == 412


def test_a_clock_that_went_back_makes_no_etag_twice(stack: Stack, client: httpx2.Client) -> None:
    path, _ = make_item(client)
    item = path.rpartition("/")[2]
    stack.sql(f"update items set updated_at = now() + interval '1 hour' where id = '{item}'")
    seen = [datetime.fromisoformat(client.get(path).json()["updated_at"])]
    seen += [
        datetime.fromisoformat(client.put(path, json={"name": "x"}).json()["updated_at"])
        for _ in range(3)
    ]
    assert [later - earlier for earlier, later in pairwise(seen)] == [timedelta(microseconds=1)] * 3


def test_pages_hold_still_while_items_come_and_go(client: httpx2.Client) -> None:
    made = [make_item(client, f"page {n}")[0].rpartition("/")[2] for n in range(12)]
    seen: list[str] = []
    cursor, turn = None, 0
    gone = {made[3], made[9]}
    while len(seen) < 12 and (cursor or not seen):
        page = client.get(
            "/v1/items", params={"limit": 3} | ({"cursor": cursor} if cursor else {})
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor, turn = page["next_cursor"], turn + 1
        make_item(client, f"between {turn}")
        if turn == 1:
            assert client.delete(f"/v1/items/{made[9]}").status_code == 204, (
                "the item to which the first page's cursor points"
            )
            assert client.delete(f"/v1/items/{made[3]}").status_code == 204
    assert len(seen) == len(set(seen)), "a page repeats an item"
    stayed = [item for item in reversed(made) if item not in gone]
    assert [item for item in seen if item in stayed] == stayed, (
        "an item that was not deleted is missing"
    )


READS = """
import asyncio
import psycopg
from sqlalchemy import text
from api.storing.database import Database
from api.configuring.settings import load_settings

async def read(statement):
    return (await database.fetch_one(statement, {}) or {}).get("seen")

async def main():
    ended = "SELECT pg_terminate_backend(pg_backend_pid())"
    for broken in ("SELECT 1 AS seen FROM pg_sleep(5)", ended, "nonsense"):
        try:
            async with asyncio.timeout(2):
                await read(broken)
        except (TimeoutError, psycopg.Error) as error:
            print(type(error).__name__, await read("SELECT 'own' AS seen"))
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
    print(await read("SELECT now() AS seen") != await read("SELECT now() AS seen"))

database = Database(load_settings(), pool_size=1)
asyncio.run(main())
"""


def test_a_read_that_was_cancelled_or_cut_off_leaves_nothing_to_the_next_on_its_connection(
    stack: Stack,
) -> None:
    said = stack.compose("exec", "--no-TTY", "api-blue", "python", "-c", READS).splitlines()
    assert said[:3] == ["TimeoutError own", "AdminShutdown own", "SyntaxError own"]
    assert said[3] == "True", "reads after a transaction share one transaction"
