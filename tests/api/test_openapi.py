"""The public description is complete and tells the truth about errors; in production it is not served."""

from typing import Any

import pytest

from api.app import create_app
from tests.api.settings_for_tests import make_settings


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return create_app(make_settings(docs_enabled=True)).openapi()


def test_every_route_of_the_contract_is_described(schema: dict[str, Any]) -> None:
    found = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert found == {
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/version"),
        ("post", "/v1/users"),
        ("post", "/v1/users/login"),
        ("get", "/v1/users/me"),
        ("post", "/v1/items"),
        ("get", "/v1/items"),
        ("get", "/v1/items/{item_id}"),
        ("put", "/v1/items/{item_id}"),
        ("delete", "/v1/items/{item_id}"),
        ("post", "/v1/exports"),
        ("get", "/v1/exports/{export_id}"),
        ("get", "/v1/exports/{export_id}/csv"),
    }


def test_every_error_is_described_in_the_one_form(schema: dict[str, Any]) -> None:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            for status, answer in operation["responses"].items():
                if status.startswith("4"):
                    reference = answer["content"]["application/json"]["schema"]["$ref"]
                    assert reference == "#/components/schemas/ErrorBody", (method, path, status)


def test_the_description_is_not_served_unless_asked_for() -> None:
    paths = {getattr(route, "path", "") for route in create_app(make_settings()).routes}
    assert paths.isdisjoint({"/openapi.json", "/docs", "/redoc"})
