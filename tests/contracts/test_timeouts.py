"""Checks limits across files: an inner limit, such as a statement's, is below the outer limit."""

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest
from stack.stories import status

from api.configuring import timeouts
from api.configuring.settings import Settings
from api.health import probe
from api.server import draining
from api.storing import database
from api.users import passwords
from tests.contracts import nginx_files
from tests.contracts.compose_files import SERVICES, defaulted, seconds, size_bytes
from tests.contracts.tree import ROOT, nodes


def grace(service: str) -> float:
    return seconds(SERVICES[service]["stop_grace_period"])


def edge(name: str, file: str) -> float:
    return seconds(nginx_files.value(name, file))


def health(service: str) -> float:
    return seconds(SERVICES[service]["healthcheck"]["timeout"])


LADDER = {
    "connecting, then the request": (timeouts.CONNECT_SECONDS, timeouts.REQUEST_SECONDS),
    "a lock, then the statement": (timeouts.LOCK_SECONDS, timeouts.STATEMENT_SECONDS),
    "a statement, then the request": (timeouts.STATEMENT_SECONDS, timeouts.REQUEST_SECONDS),
    "pool and statement, then the request": (
        timeouts.POOL_SECONDS + timeouts.STATEMENT_SECONDS,
        timeouts.REQUEST_SECONDS,
    ),
    "the queue, then the request": (timeouts.QUEUE_SECONDS, timeouts.REQUEST_SECONDS),
    "the request, then the drain": (timeouts.REQUEST_SECONDS, timeouts.GRACEFUL_SECONDS),
    "the request, then a dead worker": (
        timeouts.REQUEST_SECONDS,
        timeouts.GUNICORN_TIMEOUT_SECONDS,
    ),
    "the request, then nginx's reading": (
        timeouts.REQUEST_SECONDS,
        edge("proxy_read_timeout", "snippets/proxy.conf"),
    ),
    "the request, then nginx's sending": (
        timeouts.REQUEST_SECONDS,
        edge("proxy_send_timeout", "snippets/proxy.conf"),
    ),
    "the drain and the rest, then Gunicorn": (
        timeouts.GRACEFUL_SECONDS + draining.STOCK_SHUTDOWN_SECONDS,
        timeouts.GUNICORN_GRACEFUL_SECONDS,
    ),
    "Gunicorn, then the engine (blue)": (timeouts.GUNICORN_GRACEFUL_SECONDS, grace("api-blue")),
    "Gunicorn, then the engine (green)": (timeouts.GUNICORN_GRACEFUL_SECONDS, grace("api-green")),
    "a job, then the engine (blue)": (timeouts.WORKER_DRAIN_SECONDS, grace("worker-blue")),
    "a job, then the engine (green)": (timeouts.WORKER_DRAIN_SECONDS, grace("worker-green")),
    "the engine, then status.sh (blue)": (grace("worker-blue"), status.DRAIN_SECONDS),
    "the engine, then status.sh (green)": (grace("worker-green"), status.DRAIN_SECONDS),
    "nginx's reading, then its end": (
        edge("proxy_read_timeout", "snippets/proxy.conf"),
        grace("nginx"),
    ),
    "nginx's reading, then an old configuration": (
        edge("proxy_read_timeout", "snippets/proxy.conf"),
        edge("worker_shutdown_timeout", "nginx.conf"),
    ),
    "an idle upstream connection, then the drain": (
        edge("keepalive_timeout", "conf.d/40-live.conf"),
        timeouts.UPSTREAM_IDLE_SECONDS,
    ),
    "an old upstream connection, then the drain": (
        edge("keepalive_time", "conf.d/40-live.conf"),
        timeouts.UPSTREAM_IDLE_SECONDS,
    ),
    "an idle upstream connection, then Gunicorn": (
        timeouts.UPSTREAM_IDLE_SECONDS,
        timeouts.KEEPALIVE_SECONDS,
    ),
    "idle upstream connections, then the whole drain": (
        timeouts.UPSTREAM_IDLE_SECONDS,
        timeouts.GRACEFUL_SECONDS,
    ),
    "a readiness check, then its probe": (timeouts.READY_SECONDS, probe.PROBE_SECONDS),
    "the probe, then the engine (blue)": (probe.PROBE_SECONDS, health("api-blue")),
    "the probe, then the engine (green)": (probe.PROBE_SECONDS, health("api-green")),
}


@pytest.mark.parametrize("step", LADDER)
def test_each_limit_is_below_its_partner(step: str) -> None:
    lower, upper = LADDER[step]
    assert lower < upper


def test_a_request_waits_one_second_for_a_connection() -> None:
    assert timeouts.POOL_SECONDS == 1.0


def test_a_database_that_is_cut_off_costs_a_request_two_seconds_at_most() -> None:
    assert timeouts.POOL_SECONDS + timeouts.PEER_SECONDS <= 2
    assert database.SERVING_KEEPALIVE["tcp_user_timeout"] == timeouts.PEER_SECONDS * 1000


def test_the_drain_of_a_slot_is_thirty_seconds_and_more() -> None:
    assert timeouts.GRACEFUL_SECONDS >= 30


@pytest.fixture
def gunicorn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Gunicorn's configuration as Gunicorn reads it, with the environment of api-blue."""
    monkeypatch.setenv("ALLOWED_HOSTS", "localhost")  # of the slot's file
    for key, value in SERVICES["api-blue"]["environment"].items():
        monkeypatch.setenv(
            key, defaulted(value) or ("slipway.test" if key == "ALLOWED_HOSTS" else "")
        )
    for key in ("DATABASE_PASSWORD", "REDIS_PASSWORD", "TOKEN_KEY"):
        monkeypatch.setenv(key, "q8Zr1vXw3Ty6Ub9Nc2Me5Ka7Ld0Pf4Hg")
    return runpy.run_path(str(ROOT / "api/server/gunicorn_conf.py"))


def test_gunicorn_takes_the_ladder_and_binds_the_socket_of_its_slot_alone(
    gunicorn: dict[str, Any],
) -> None:
    assert gunicorn["bind"] == "unix:/run/slots/blue.sock"
    assert gunicorn["graceful_timeout"] == timeouts.GUNICORN_GRACEFUL_SECONDS
    assert gunicorn["timeout"] == timeouts.GUNICORN_TIMEOUT_SECONDS
    assert gunicorn["keepalive"] == timeouts.KEEPALIVE_SECONDS
    assert (
        gunicorn["worker_class"]
        == f"{draining.DrainingWorker.__module__}.{draining.DrainingWorker.__name__}"
    )
    assert Path(gunicorn["worker_tmp_dir"]) == Path("/dev/shm")
    assert gunicorn["control_socket_disable"] is True
    assert gunicorn["umask"] == 0o007
    assert not gunicorn.get("reuse_port")
    assert not gunicorn.get("max_requests")


def test_gunicorn_counts_what_hashing_takes_and_two_processes_fit(gunicorn: dict[str, Any]) -> None:
    hashing = passwords.HASHES_AT_ONCE * passwords.HASH_KIBIBYTES * 1024
    assert gunicorn["WORKER_BYTES"] >= gunicorn["OWN_BYTES"] + hashing
    memory = size_bytes(defaulted(SERVICES["api-blue"]["mem_limit"]))
    least = gunicorn["LEAST_WORKERS"]
    assert gunicorn["worker_count"](float(least), memory) == least
    assert gunicorn["MASTER_BYTES"] + least * gunicorn["WORKER_BYTES"] <= memory


def test_the_body_limit_is_the_same_in_nginx_compose_and_the_settings() -> None:
    limit = Settings.model_fields["max_body_bytes"].default
    assert size_bytes(nginx_files.value("client_max_body_size", "conf.d/20-limits.conf")) == limit
    for slot in ("blue", "green"):
        assert int(SERVICES[f"api-{slot}"]["environment"]["MAX_BODY_BYTES"]) == limit


def test_every_limit_of_the_ladder_is_used() -> None:
    used = {
        name
        for path, node in nodes("api/**/*.py", "worker/**/*.py")
        for name in (getattr(node, "id", ""), getattr(node, "attr", ""))
        if path.name != "timeouts.py" and isinstance(node, ast.Name | ast.Attribute)
    }
    assert {name for name in vars(timeouts) if name.isupper()} - used == set()
