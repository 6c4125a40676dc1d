"""The metrics of requests and processes, for Prometheus; other metrics are in their own modules.

To add a metric, define a Counter, Histogram or Gauge of prometheus_client once, at the top of a
module. /metrics then shows it, added up over the processes of the slot
(api/server/metric_files.py). A Gauge needs a `multiprocess_mode`: `livesum` or `livemax`. Info,
Enum, exemplars and custom collectors are not shown. Names begin with `slipway_`. A label has few
values: never an id, an address or a raw path.

Each process of the worker counts the same metrics in memory and shows them at its own port
(worker/metrics.py).
"""

import asyncio
import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import Scope

from api.configuring.settings import ProcessSettings

CONTENT_TYPE = CONTENT_TYPE_LATEST
LOOK_SECONDS = 1.0  # between two measurements of the event loop; Prometheus usually asks every 15 s
# nginx passes on no other method.
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# From a read by key (1 to 2 ms) to the longest request (REQUEST_SECONDS, 15 s).
REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

REQUEST_SECONDS = Histogram(
    "slipway_http_request_duration_seconds",
    "Requests by route template, method and class of the status, until the end of the answer;"
    " without probes.",
    ("route", "method", "status"),
    buckets=REQUEST_BUCKETS,
)
IN_FLIGHT = Gauge(
    "slipway_http_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum"
)
SHED = Counter(
    "slipway_http_requests_shed_total",
    "Requests refused because they had waited for a process longer than QUEUE_SECONDS.",
)
LOOP_LAG = Histogram(
    "slipway_event_loop_lag_seconds",
    "How late a timer of each process fires, measured once a second.",
    buckets=LAG_BUCKETS,
)
RELEASE = Gauge(
    "slipway_release_info", "Always 1.", ("service", "slot", "release"), multiprocess_mode="max"
)
PROCESSES = Gauge("slipway_processes", "Processes that serve.", multiprocess_mode="livesum")


def route_of(scope: Scope) -> str:
    """Return the template of the request's route, `/v1/items/{item_id}`, or `unmatched`."""
    # FastAPI keeps the route with its router's prefix here; scope["route"] is without the prefix.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", None) or "unmatched"


def count_request(scope: Scope, status: int, seconds: float) -> None:
    """Count a request that ended; status 0 means that its client left before the answer."""
    method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
    status_class = f"{status // 100}xx" if status else "none"
    REQUEST_SECONDS.labels(route_of(scope), method, status_class).observe(seconds)


def render() -> bytes:
    """Return all metrics in Prometheus' text form. It takes milliseconds: call it in a thread."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


async def watch_loop(settings: ProcessSettings) -> None:
    """Announce this process, then measure once a second how late its event loop is."""
    RELEASE.labels(settings.service, settings.slot, settings.release).set(1)
    PROCESSES.set(1)
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))
