"""The console needs a password, fails closed, and protects every route with the login."""

import asyncio
import re

import httpx2
import pytest
from pydantic import SecretStr

from api.app import create_app
from api.ops.dependencies import SESSION_COOKIE
from tests.api.settings_for_tests import OPS_PASSWORD, make_settings

LOGIN = {"user": "operator", "password": OPS_PASSWORD}


def ask(
    method: str, path: str, password: str | None = OPS_PASSWORD, **options: object
) -> httpx2.Response:
    """Send a request to an application whose Redis does not answer."""
    app = create_app(make_settings(ops_password=SecretStr(password) if password else None))

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://testserver") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]

    return asyncio.run(send())


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/ops", "/ops/session"])
def test_without_a_password_the_console_is_an_address_like_any_other(
    method: str, path: str
) -> None:
    answer, other = (ask(method, at, password=None, json=LOGIN) for at in (path, "/nothing/here"))
    assert answer.status_code == other.status_code == 404
    assert {**answer.json(), "request_id": ""} == {**other.json(), "request_id": ""}


@pytest.mark.parametrize(
    "wrong", [{"user": "root"}, {"password": OPS_PASSWORD + "x"}, {"password": "n"}]
)
def test_a_wrong_user_or_password_is_refused_in_the_same_words(wrong: dict[str, str]) -> None:
    answer = ask("POST", "/ops/session", json=LOGIN | wrong)
    assert (answer.status_code, answer.json()["error"]) == (401, "login_failed")
    assert answer.json()["message"] == "The user or the password is wrong."
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_without_redis_the_console_fails_closed(method: str) -> None:
    answer = ask(method, "/ops/session", json=LOGIN, headers={"Cookie": f"{SESSION_COOKIE}=any"})
    assert (answer.status_code, answer.json()["error"]) == (503, "console_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "set-cookie" not in answer.headers


def test_without_a_session_redis_is_not_even_asked() -> None:
    assert ask("GET", "/ops/session").status_code == 401
    assert ask("DELETE", "/ops/session").status_code == 401


def test_every_route_of_the_console_but_login_asks_for_the_operator() -> None:
    """These routes include those that also check the CSRF token."""
    paths = create_app(make_settings(ops_password=SecretStr(OPS_PASSWORD))).openapi()["paths"]
    routes = {(method, path) for path in paths if path.startswith("/ops") for method in paths[path]}
    answers = {
        (m, path): ask(m.upper(), re.sub(r"\{\w+\}", "1", path), json={}).status_code
        for m, path in routes
    }
    assert {route for route, status in answers.items() if status != 401} == {
        ("post", "/ops/session")
    }
    assert len(routes) >= 3


def test_a_new_password_makes_every_earlier_session_unknown() -> None:
    keys = set()
    for password in (OPS_PASSWORD, OPS_PASSWORD[::-1]):
        settings = make_settings(ops_password=SecretStr(password))
        keys.add(create_app(settings).state.sessions._key("one session"))
    assert len(keys) == 2
