"""Only the listed sites may call the API, and only with methods and headers of the routes."""

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from api.app import create_app
from tests.api.settings_for_tests import OPS_PASSWORD, make_settings
from tests.api.test_errors_and_middleware import call

SITE = "https://app.example.org"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(make_settings(cors_origins=(SITE,)))


def preflight(
    app: FastAPI, origin: str, method: str = "PUT", header: str = "authorization"
) -> httpx2.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": header,
    }
    return call(app, "OPTIONS", "/v1/items", headers=asked)


def test_a_site_of_the_list_may_call_and_read_the_limits(app: FastAPI) -> None:
    allowed = preflight(app, SITE)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SITE
    answer = call(app, "GET", "/v1/items", headers={"Origin": SITE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, SITE)
    assert {"RateLimit", "Retry-After", "X-Request-ID"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://app.example.org", f"{SITE}.evil.example"]
)
def test_another_site_may_not(app: FastAPI, origin: str) -> None:
    assert preflight(app, origin).status_code == 400
    for answer in (
        preflight(app, origin),
        call(app, "GET", "/v1/items", headers={"Origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "header"), [("PATCH", "authorization"), ("TRACE", "accept"), ("GET", "x-made-up")]
)
def test_only_methods_and_headers_that_a_route_takes_are_allowed(
    app: FastAPI, method: str, header: str
) -> None:
    assert preflight(app, SITE, method, header).status_code == 400


def test_without_a_list_no_site_may() -> None:
    app = create_app(make_settings())
    assert preflight(app, SITE).status_code == 405
    assert (
        "access-control-allow-origin"
        not in call(app, "GET", "/v1/items", headers={"Origin": SITE}).headers
    )


def test_the_console_is_for_no_site_of_the_list() -> None:
    app = create_app(
        make_settings(
            cors_origins=(SITE,), cors_credentials=True, ops_password=SecretStr(OPS_PASSWORD)
        )
    )
    for path, status in (("/ops/session", 401), ("/v1/items", 401)):
        answer = call(app, "GET", path, headers={"Origin": SITE})
        assert answer.status_code == status
        assert ("access-control-allow-origin" in answer.headers) is (path == "/v1/items")
