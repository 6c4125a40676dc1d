"""Tests the request metrics in /metrics, and the choice of each process's metric file."""

import time

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.server.metric_files import lowest_free
from tests.api.settings_for_tests import make_settings
from tests.api.test_errors_and_middleware import call


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(make_settings())


def counted(route: str, method: str, status: str) -> float:
    labels = {"route": route, "method": method, "status": status}
    return REGISTRY.get_sample_value("slipway_http_request_duration_seconds_count", labels) or 0.0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/v1/items/0b7d6a6c-0000-4000-8000-000000000000", "/v1/items/{item_id}", "4xx"),
        ("PATCH", "/v1/items/x", "/v1/items/{item_id}", "4xx"),
        ("GET", "/v1/users/me", "/v1/users/me", "4xx"),
        ("GET", "/nothing/of/the/kind", "unmatched", "4xx"),
    ],
)
def test_a_request_counts_under_its_route_and_never_under_its_path(
    app: FastAPI, method: str, path: str, route: str, status: str
) -> None:
    before = counted(route, method, status)
    call(app, method, path)
    assert counted(route, method, status) == before + 1
    assert path not in call(app, "GET", "/metrics").text or path == route


def test_a_method_of_ones_own_makes_no_label_of_its_own(app: FastAPI) -> None:
    before = counted("unmatched", "other", "4xx")
    call(app, "BREW", "/nothing")
    assert counted("unmatched", "other", "4xx") == before + 1


def test_probes_do_not_count_as_requests(app: FastAPI) -> None:
    before = counted("/livez", "GET", "2xx")
    call(app, "GET", "/livez")
    assert counted("/livez", "GET", "2xx") == before == 0


def test_the_metrics_are_in_prometheus_form_and_need_no_known_host(app: FastAPI) -> None:
    answer = call(app, "GET", "/metrics", headers={"host": "10.0.0.1"})
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert names >= {
        "slipway_http_request_duration_seconds",
        "slipway_http_requests_in_flight",
        "slipway_event_loop_lag_seconds",
        "slipway_database_pool_in_use",
        "slipway_database_pool_size",
        "slipway_database_pool_wait_seconds",
        "slipway_rate_limit_decisions",
        "slipway_cache_requests",
        "slipway_redis_errors",
        "slipway_release_info",
    }
    assert REGISTRY.get_sample_value("slipway_http_requests_in_flight") == 0


def test_every_answer_tells_how_long_it_took(app: FastAPI) -> None:
    started = time.monotonic()
    timing = call(app, "GET", "/livez").headers["server-timing"]
    took = time.monotonic() - started
    assert timing.startswith("app;dur=")
    assert 0 <= float(timing.removeprefix("app;dur=")) <= took * 1000


@pytest.mark.parametrize(("taken", "free"), [((), 1), ((1, 2), 3), ((1, 3), 2), ((2,), 1)])
def test_a_new_worker_takes_the_lowest_free_number(taken: tuple[int, ...], free: int) -> None:
    assert lowest_free(taken) == free
