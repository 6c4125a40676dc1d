"""The public description is complete and lists the errors; production does not serve it."""

from typing import Any

import pytest
from pydantic import SecretStr

from api.app import create_app
from tests.api.settings_for_tests import OPS_PASSWORD, make_settings


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return create_app(
        make_settings(docs_enabled=True, ops_password=SecretStr(OPS_PASSWORD))
    ).openapi()


def test_every_route_of_the_contract_is_described(schema: dict[str, Any]) -> None:
    described = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert described == {
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/version"),
        ("post", "/v1/users"),
        ("post", "/v1/users/login"),
        ("post", "/v1/users/refresh"),
        ("post", "/v1/users/logout"),
        ("get", "/v1/users/me"),
        ("post", "/v1/items"),
        ("get", "/v1/items"),
        ("get", "/v1/item-summary"),
        ("get", "/v1/items/{item_id}"),
        ("put", "/v1/items/{item_id}"),
        ("delete", "/v1/items/{item_id}"),
        ("post", "/v1/exports"),
        ("get", "/v1/exports/{export_id}"),
        ("get", "/v1/exports/{export_id}/csv"),
        ("post", "/v1/webhooks"),
        ("get", "/v1/webhooks"),
        ("get", "/v1/webhooks/{webhook_id}"),
        ("put", "/v1/webhooks/{webhook_id}"),
        ("delete", "/v1/webhooks/{webhook_id}"),
        ("post", "/v1/webhooks/{webhook_id}/secret"),
        ("get", "/v1/webhooks/{webhook_id}/deliveries"),
        ("post", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"),
        ("post", "/v1/webhooks/{webhook_id}/replay"),
        ("post", "/ops/session"),
        ("get", "/ops/session"),
        ("delete", "/ops/session"),
        ("get", "/ops/failed-jobs"),
        ("post", "/ops/failed-jobs/{job_id}/retry"),
        ("delete", "/ops/failed-jobs/{job_id}"),
    }


def operations(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{m} {path}", operation)
        for path, methods in schema["paths"].items()
        for m, operation in methods.items()
    ]


def test_every_error_is_described_in_the_one_form(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            if status[0] in "45" and (name, status) != ("get /readyz", "503"):
                reference = answer["content"]["application/json"]["schema"]["$ref"]
                assert reference == "#/components/schemas/ErrorBody", (name, status)


def test_what_any_route_may_answer_is_described_for_every_one(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        assert {"400", "413", "429", "500", "502", "503", "504"} <= operation["responses"].keys(), (
            name
        )
        assert ("401" in operation["responses"]) >= ("security" in operation), name
        assert ("422" in operation["responses"]) == bool(
            {"parameters", "requestBody"} & operation.keys()
        ), name
        for status in operation["responses"].keys() & {"429", "503"}:
            assert operation["responses"][status]["headers"]["Retry-After"]["required"], (
                name,
                status,
            )
    assert (
        schema["components"]["schemas"]
        .keys()
        .isdisjoint({"HTTPValidationError", "ValidationError"})
    )


def test_the_description_is_not_served_unless_asked_for() -> None:
    paths = {getattr(route, "path", "") for route in create_app(make_settings()).routes}
    assert paths.isdisjoint({"/openapi.json", "/docs", "/redoc"})
