"""Tests readiness: the faults it reports and tolerates, and the cost of a probe."""

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic.script import ScriptDirectory

from api.app import create_app
from api.configuring.timeouts import READY_CACHE_SECONDS, READY_SECONDS
from api.health import probe
from api.health.schemas import Ready
from api.health.service import Readiness
from api.migrate import alembic_config
from api.migrating.revisions import Migrations, code_migrations
from tests.api.settings_for_tests import make_settings

MIGRATIONS = Migrations(
    head="b", known=frozenset({"a", "ready", "b"}), enough=frozenset({"ready", "b"})
)


class Seam:
    """Replaces Postgres and Redis."""

    def __init__(self, revision: str | None = "b", database: Any = None, redis: Any = None) -> None:
        self.revision, self.database_error, self.redis_error = revision, database, redis
        self.asked = 0
        self.now = 100.0
        self.delay = 0.0
        self.readiness = Readiness(
            self.ask_database, self.ask_redis, MIGRATIONS, clock=lambda: self.now
        )

    async def ask_database(self) -> str | None:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.database_error:
            raise self.database_error
        return self.revision

    async def ask_redis(self) -> bool:
        if self.redis_error:
            raise self.redis_error
        return True

    def check(self) -> Ready:
        return asyncio.run(self.readiness.check())


def test_ready_when_everything_answers() -> None:
    assert Seam().check().status == "ready"


def test_redis_away_degrades_and_still_serves() -> None:
    answer = Seam(redis=ConnectionError()).check()
    assert answer.status == "degraded"
    assert answer.checks["redis"].error == "ConnectionError"


def test_database_away_is_unavailable() -> None:
    answer = Seam(database=OSError()).check()
    assert answer.status == "unavailable"
    assert not answer.checks["migrations"].ok


@pytest.mark.parametrize("revision", ["a", None])
def test_a_database_behind_or_empty_is_unavailable(revision: str | None) -> None:
    answer = Seam(revision).check()
    assert answer.status == "unavailable"
    assert answer.checks["database"].ok
    assert "expected b" in (answer.checks["migrations"].error or "")


def test_a_database_ahead_of_the_code_is_accepted() -> None:
    assert Seam("c-from-a-newer-release").check().status == "ready"


def test_a_database_that_waits_for_post_migrations_alone_is_accepted() -> None:
    assert Seam("ready").check().status == "ready"


def test_a_hanging_database_is_given_up_in_time() -> None:
    seam = Seam()
    seam.delay = 30
    answer = seam.check()
    assert answer.checks["database"].error == "timeout"
    assert READY_SECONDS * 1000 * 0.9 < answer.checks["database"].ms < READY_SECONDS * 10_000


def test_many_probes_at_once_ask_once_and_the_answer_is_kept_briefly() -> None:
    seam = Seam()
    seam.delay = 0.01

    async def many() -> None:
        await asyncio.gather(*(seam.readiness.check() for _ in range(20)))
        assert seam.asked == 1
        seam.now += READY_CACHE_SECONDS * 0.9
        await seam.readiness.check()
        assert seam.asked == 1
        seam.now += READY_CACHE_SECONDS
        await seam.readiness.check()
        assert seam.asked == 2

    asyncio.run(many())


def test_a_probe_that_gives_up_does_not_cancel_the_others() -> None:
    seam = Seam()
    seam.delay = 0.05

    async def two() -> str:
        first = asyncio.create_task(seam.readiness.check())
        second = asyncio.create_task(seam.readiness.check())
        await asyncio.sleep(0.01)
        first.cancel()
        return (await second).status

    assert asyncio.run(two()) == "ready"


def test_readyz_answers_503_with_checks_and_the_error_fields() -> None:
    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=create_app(make_settings()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.get("/readyz")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.json()["error"] == "not_ready"
    assert answer.json()["checks"]["database"] == {
        "ok": False,
        "ms": answer.json()["checks"]["database"]["ms"],
        "error": "unavailable",
    }
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_code_reads_its_head_as_alembic_does() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert code_migrations().head == script.get_current_head()
    assert code_migrations().known == {revision.revision for revision in script.walk_revisions()}


def serve_once(path: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_the_container_probe_tells_by_its_exit_status(
    status: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    body = json.dumps({"status": "x"})
    serve_once(tmp_path / "blue.sock", f"HTTP/1.1 {status}\r\n\r\n{body}".encode())
    monkeypatch.setattr(probe, "SLOTS_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLIPWAY_SLOT", "blue")
    assert probe.main() == code
    assert body in capsys.readouterr().out


def test_the_container_probe_fails_without_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SLOTS_FOLDER", str(tmp_path))
    assert probe.main() == 1
