"""Every answer has an id and a release, errors have one format, and requests have limits."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import psycopg.errors
import pytest
import sqlalchemy.exc
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from api.app import create_app
from api.configuring.timeouts import QUEUE_SECONDS
from api.requests.middleware import RequestMiddleware
from tests.api.settings_for_tests import make_settings

LIMIT_BYTES = 2048


async def fail_at_the_database(kind: str) -> None:
    raise {
        "pool": sqlalchemy.exc.TimeoutError("no free connection"),
        "gone": sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.OperationalError("gone")),
        "cut-off": psycopg.errors.AdminShutdown("terminating connection"),
        "own-mistake": psycopg.errors.SyntaxError("row-secret"),
        "mistake": sqlalchemy.exc.ProgrammingError(
            "SELEC", {}, psycopg.errors.SyntaxError("row-secret")
        ),
    }[kind]


async def be_cut_off() -> None:
    try:
        await asyncio.sleep(30)
    finally:
        raise psycopg.OperationalError("the connection was closed when the time was over")


def make_app() -> FastAPI:
    app = create_app(make_settings(max_body_bytes=LIMIT_BYTES))

    @app.get("/test/crash")
    async def crash() -> None:
        raise RuntimeError("inner-secret")

    @app.get("/test/slow")
    async def slow() -> None:
        await asyncio.sleep(30)

    @app.get("/test/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"first"
            await asyncio.sleep(1.2)
            yield b"second"

        return StreamingResponse(pieces())

    @app.get("/test/broken-stream")
    async def broken_stream() -> StreamingResponse:
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"first"
            raise RuntimeError("too late")

        return StreamingResponse(pieces())

    app.get("/test/database/{kind}")(fail_at_the_database)
    app.get("/test/cut-off")(be_cut_off)

    @app.post("/test/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    return app


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return make_app()


def call(app: Any, method: str, path: str, **arguments: Any) -> httpx2.Response:
    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(send())


def assert_error(answer: httpx2.Response, status: int, error: str) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "message", "details", "request_id"}
    assert answer.json()["error"] == error
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-slipway-release"] == "r-1"


def test_every_answer_names_release_slot_and_request(app: FastAPI) -> None:
    answer = call(
        app, "GET", "/livez", headers={"x-request-id": "0123456789abcdef0123456789abcdef"}
    )
    assert answer.json() == {"status": "alive"}
    assert answer.headers["x-request-id"] == "0123456789abcdef0123456789abcdef"
    assert answer.headers["x-slipway-release"] == "r-1"
    assert answer.headers["x-slipway-slot"] == "blue"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "sent_id", ["short", "x" * 65, 'abcdefgh"} forged', "abcdefgh\tnext", "", "äbcdefgh"]
)
def test_a_request_id_that_is_not_ours_is_replaced(app: FastAPI, sent_id: str) -> None:
    new_id = call(app, "GET", "/livez", headers={"x-request-id": sent_id.encode()}).headers[
        "x-request-id"
    ]
    assert new_id != sent_id
    assert len(new_id) == 32
    int(new_id, 16)


def test_unknown_address_and_wrong_method_have_the_one_form(app: FastAPI) -> None:
    assert_error(call(app, "GET", "/nothing"), 404, "not_found")
    for path, methods in (
        ("/v1/items", "GET, POST"),
        (f"/v1/items/{uuid4()}", "GET, PUT, DELETE"),
        ("/livez", "GET"),
    ):
        wrong = call(app, "PATCH", path)
        assert_error(wrong, 405, "method_not_allowed")
        assert wrong.headers["allow"] == methods


def test_a_wrong_body_names_fields_and_repeats_no_value(app: FastAPI) -> None:
    answer = call(
        app, "POST", "/v1/users", json={"email": "not-an-address", "password": "typed-pw"}
    )
    assert_error(answer, 422, "validation_failed")
    assert {item["field"] for item in answer.json()["details"]} == {"body.email", "body.password"}
    assert all(set(item) == {"field", "message"} for item in answer.json()["details"])
    assert "typed-pw" not in answer.text
    assert "not-an-address" not in answer.text


def test_text_that_the_database_cannot_store_is_the_callers_error(app: FastAPI) -> None:
    headers = {"Authorization": f"Bearer {app.state.tokens.issue(__import__('uuid').uuid4())}"}
    assert_error(
        call(app, "POST", "/v1/items", json={"name": "a\0b"}, headers=headers),
        422,
        "validation_failed",
    )


@pytest.mark.parametrize(
    "text", ["{", '{"name": "\\ud800"}', "[]", "null", '{"name": "a", "price_cents": 1e400}']
)
def test_a_malformed_body_is_the_callers_error(app: FastAPI, text: str) -> None:
    token = app.state.tokens.issue(uuid4())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    assert_error(
        call(app, "POST", "/v1/items", content=text, headers=headers), 422, "validation_failed"
    )


@pytest.mark.parametrize("path", ["/v1/users", "/v1/users/login"])
@pytest.mark.parametrize("field", ["email", "password"])
def test_credentials_that_are_not_text_are_the_callers_error(
    app: FastAPI, path: str, field: str
) -> None:
    good = {"email": '"a@example.org"', "password": '"correct horse battery"'}
    bad = {**good, field: r'"a\ud800correct@example.org"'}
    text = "{" + ", ".join(f'"{key}": {value}' for key, value in bad.items()) + "}"
    headers = {"Content-Type": "application/json"}
    assert_error(call(app, "POST", path, content=text, headers=headers), 422, "validation_failed")


def test_a_crash_is_logged_with_its_request_and_leaks_nothing(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    answer = call(app, "GET", "/test/crash")
    assert_error(answer, 500, "internal_error")
    assert "inner-secret" not in answer.text
    assert any(record.exc_info for record in caplog.records)


def test_a_stream_that_breaks_is_broken_off_and_not_ended_as_if_whole(app: FastAPI) -> None:
    with pytest.raises(RuntimeError, match="too late"):
        call(app, "GET", "/test/broken-stream")


@pytest.mark.parametrize("kind", ["pool", "gone", "cut-off"])
def test_an_unavailable_database_is_503_with_retry_after(app: FastAPI, kind: str) -> None:
    answer = call(app, "GET", f"/test/database/{kind}")
    assert_error(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("kind", ["mistake", "own-mistake"])
def test_a_mistake_in_a_statement_is_500_and_not_an_outage(app: FastAPI, kind: str) -> None:
    answer = call(app, "GET", f"/test/database/{kind}")
    assert_error(answer, 500, "internal_error")
    assert "row-secret" not in answer.text


def test_a_database_that_refuses_connections_is_503(app: FastAPI) -> None:
    login = {"email": "a@example.org", "password": "x"}
    assert_error(call(app, "POST", "/v1/users/login", json=login), 503, "database_unavailable")
    owner = {"Authorization": f"Bearer {app.state.tokens.issue(uuid4())}"}
    assert_error(
        call(app, "GET", f"/v1/items/{uuid4()}", headers=owner), 503, "database_unavailable"
    )


def test_a_body_over_the_limit_is_refused_before_it_is_read(app: FastAPI) -> None:
    assert_error(
        call(app, "POST", "/test/body", content=b"x" * (LIMIT_BYTES + 1)), 413, "body_too_large"
    )
    assert_error(
        call(app, "POST", "/nothing", content=b"x" * (LIMIT_BYTES + 1)), 413, "body_too_large"
    )
    assert call(app, "POST", "/test/body", content=b"x" * LIMIT_BYTES).json() == LIMIT_BYTES


async def _chunks(count: int) -> AsyncGenerator[bytes]:
    for _ in range(count):
        yield b"x" * 512


@pytest.mark.parametrize("path", ["/test/body", "/v1/users/login"])
def test_a_chunked_body_over_the_limit_is_refused_too(app: FastAPI, path: str) -> None:
    assert_error(call(app, "POST", path, content=_chunks(5)), 413, "body_too_large")
    assert call(app, "POST", "/test/body", content=_chunks(4)).json() == LIMIT_BYTES


def test_a_request_over_its_time_is_answered_504(app: FastAPI) -> None:
    limited = RequestMiddleware(app, make_settings(), request_seconds=0.05)
    started = time.monotonic()
    answer = call(limited, "GET", "/test/slow")
    assert time.monotonic() - started < 25, "the answer waited for the route"
    assert answer.status_code == 504
    assert answer.json()["error"] == "request_timeout"
    assert "0.05 s" in answer.json()["message"]


def test_who_answers_its_own_cancellation_answers_in_the_one_form(app: FastAPI) -> None:
    # 1 s, so that the request reaches the route on a busy machine: if it is cancelled before, the
    # answer is 504.
    limited = RequestMiddleware(app, make_settings(), request_seconds=1)
    answer = call(limited, "GET", "/test/cut-off")
    assert (answer.status_code, answer.json()["error"]) == (503, "database_unavailable")


def test_the_time_limit_ends_when_the_answer_starts(app: FastAPI) -> None:
    limited = RequestMiddleware(app, make_settings(), request_seconds=1)
    assert call(limited, "GET", "/test/stream").text == "firstsecond"


def test_what_waited_too_long_for_a_process_is_refused_and_probes_are_not(app: FastAPI) -> None:
    sent = {"x-request-start": f"{time.time() - QUEUE_SECONDS - 0.1:.3f}"}
    answer = call(app, "GET", "/nothing", headers=sent)
    assert_error(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert call(app, "GET", "/livez", headers=sent).status_code == 200


@pytest.mark.parametrize("age", [QUEUE_SECONDS / 4, -3600])
def test_what_is_fresh_is_served_whatever_the_clocks_say(app: FastAPI, age: float) -> None:
    assert (
        call(
            app, "GET", "/nothing", headers={"x-request-start": f"{time.time() - age:.3f}"}
        ).status_code
        == 404
    )
    assert call(app, "GET", "/nothing", headers={"x-request-start": "soon"}).status_code == 404


def test_an_unknown_host_is_refused_except_by_probes(app: FastAPI) -> None:
    assert_error(
        call(app, "GET", "/v1/items", headers={"host": "evil.example"}), 400, "unknown_host"
    )
    assert call(app, "GET", "/livez", headers={"host": "10.0.0.1"}).status_code == 200
    assert call(app, "GET", "/nothing", headers={"host": "TestServer:8443"}).status_code == 404


def test_the_access_line_has_path_and_status_but_no_query(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="api")
    call(
        app, "GET", "/nothing?token=query-secret", headers={"Authorization": "Bearer header-secret"}
    )
    fields = vars(next(r for r in caplog.records if getattr(r, "action", "") == "request_served"))
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/nothing", 404)
    assert fields["duration_ms"] >= 0
    assert "secret" not in str(fields)


def test_probes_are_not_logged_at_info(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="api")
    call(app, "GET", "/livez")
    call(app, "GET", "/version")
    assert not caplog.records
