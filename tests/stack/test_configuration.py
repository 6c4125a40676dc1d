"""A release checks the stack's configuration; Postgres counts the connections."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from stack.config import project
from stack.rules import connections

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.stack
MIGRATE = ("docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", "migrate")
ADVISORY_KEY = 0x736C6970776179  # api/migrate.py
SESSIONS = (
    "select application_name, count(*) from pg_stat_activity"
    " where backend_type = 'client backend' and pid <> pg_backend_pid() group by 1"
)
# How many connections of its share a service may leave unused in this test. The worker opens one
# connection only for a scrape, and rarely uses all three connections of its queue at once.
UNUSED = {"slipway.api.blue": 0, "slipway.worker.blue": 3}
OWN_OF_THE_SERVER = {  # health check, scripts and a backup that is due, as superuser
    "slipway.postgres.none",
    "slipway.scripts.none",
    "slipway.backup.none",
}


@contextmanager
def secret(stack: Stack, name: str, value: str) -> Iterator[None]:
    """Replace the content of a secret file during the block."""
    file = stack.root / "secrets" / name
    before = file.read_text(encoding="utf-8")
    file.chmod(0o644)
    file.write_text(value + "\n", encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")
        file.chmod(0o444)


def test_the_stack_as_up_makes_it_has_no_finding(stack: Stack) -> None:
    containers = stack.compose("ps", "--all", "--quiet")
    done = stack.run("./scripts/check-config.sh")
    lines = done.stdout.splitlines()
    assert lines[-2] == "0 critical, 0 to reconsider"
    assert lines[-1].startswith("live: release ")
    assert stack.compose("ps", "--all", "--quiet") == containers


def test_each_finding_has_its_key_reason_and_fix_and_no_value(stack: Stack) -> None:
    with secret(stack, "token_key", "canary-7913586"):
        done = stack.run(
            "./scripts/check-config.sh", check=False, DOCS_ENABLED="true", LOG_LEVEL="canary-level"
        )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "critical LOG_LEVEL",
        "critical TOKEN_KEY",
        "warning DOCS_ENABLED",
    ]
    assert "shorter than 32 characters; put a random key into secrets/token_key" in lines[1]
    assert "canary" not in done.stdout + done.stderr
    assert lines[-1].startswith("live: release ")


def test_warnings_alone_are_told_and_exit_with_0(stack: Stack) -> None:
    done = stack.run("./scripts/check-config.sh", DOCS_ENABLED="true", ACCESS_TOKEN_MINUTES="61")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[:2]] == [
        "warning ACCESS_TOKEN_MINUTES",
        "warning DOCS_ENABLED",
    ]


def image_names(stack: Stack) -> set[str]:
    """Return the tag and the id of each image; the engine lists them in no certain order."""
    form = ("--format", "{{.Tag}} {{.ID}}", stack.image)
    return set(stack.run("docker", "images", *form).stdout.splitlines())


def test_a_deploy_with_a_refused_setting_or_too_many_connections_has_no_effect(
    stack: Stack,
) -> None:
    begun, images = len(stack.ledger()), image_names(stack)
    done = stack.deploy(
        check=False, ACCESS_TOKEN_MINUTES="5000", DATABASE_POOL_SIZE="20", API_PROCESSES="3"
    )
    assert done.returncode == 1
    for part in (
        "critical ACCESS_TOKEN_MINUTES: ",
        "error: ACCESS_TOKEN_MINUTES: ",
        "all processes may open 142 connections, and Postgres takes 57 (60 less 3 reserved)",
        "lower DATABASE_POOL_SIZE, API_PROCESSES, WORKER_PROCESSES or WORKER_CONCURRENCY",
        "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration",
    ):
        assert part in done.stderr
    assert [entry["result"] for entry in stack.ledger()[begun:]] == ["refused"], (
        "the ledger has other new entries than `refused`"
    )
    assert image_names(stack) == images
    assert "==> image" not in done.stdout


def sessions(stack: Stack) -> dict[str, int]:
    rows = [line.rpartition("|") for line in stack.sql(SESSIONS).splitlines()]
    return {name: int(count) for name, _, count in rows}


@contextmanager
def load(stack: Stack, clients: int) -> Iterator[None]:
    """Read items and request exports from many clients at once during the block."""
    token, stop = stack.token(), threading.Event()

    def ask() -> None:
        with stack.client(headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
            while not stop.is_set():
                client.get("/v1/items")
                client.post("/v1/exports")

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.alone  # the load must fill every pool
def test_under_load_every_connection_has_a_name_and_none_has_more_than_its_share(
    stack: Stack, figure: Figure
) -> None:
    budget = connections.budget(project.load(stack.root))
    most: dict[str, int] = {}

    def look() -> bool:
        for name, count in sessions(stack).items():
            most[name] = max(most.get(name, 0), count)
        return is_full() and "slipway.migrate.none" in most

    def is_full() -> bool:
        return all(most.get(name, 0) >= budget[name] - unused for name, unused in UNUSED.items())

    lock = f"select pg_advisory_lock({ADVISORY_KEY})"
    # While another session holds its lock, migrate waits, and its connection can be counted.
    with load(stack, clients=24), ThreadPoolExecutor() as others, stack.holding(lock, "operator"):
        others.submit(stack.run, *MIGRATE, MIGRATE_TAG="blue", MIGRATE_CONFIRM="yes")
        with suppress(AssertionError):  # the assertion below fails with the counts
            wait_until(look, 45, "all pools of the live slot are full")
    figure(f"connections under load {most}, of {budget}")
    assert is_full(), f"{most}, computed {budget}"
    assert "slipway.migrate.none" in most
    assert set(most) - OWN_OF_THE_SERVER <= set(budget), "a connection without an application_name"
    assert {name: count for name, count in most.items() if count > budget.get(name, 3)} == {}


def test_a_new_process_opens_its_connections_before_a_request_needs_them(stack: Stack) -> None:
    share = connections.budget(project.load(stack.root))["slipway.api.blue"]
    stack.compose("restart", "api-blue")
    wait_until(
        lambda: sessions(stack).get("slipway.api.blue") == share, 60, "every pool is full of them"
    )


def test_every_time_is_utc(stack: Stack) -> None:
    for service in ("nginx", "api-blue", "worker-blue", "postgres", "redis"):
        assert stack.compose("exec", "--no-TTY", service, "date", "+%z").strip() == "+0000", service
    assert {stack.sql(f"show {name}") for name in ("timezone", "log_timezone")} <= {
        "UTC",
        "Etc/UTC",
    }
