"""Tests the worker's decisions without a database: CSV cells, retries, heartbeat, memory."""

import asyncio
import csv
import io
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from procrastinate.jobs import Job
from pydantic import SecretStr

from api.configuring.container import used_bytes
from api.configuring.settings import WorkerSettings
from worker import health, stalled
from worker.execution import MAX_ATTEMPTS, Backoff
from worker.exports.service import csv_lines, guard_cell
from worker.loop import WorkerLoop, every, share_bytes


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")']
)
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(text: str) -> None:
    assert guard_cell(text) == "'" + text


@pytest.mark.parametrize("value", ["plain", "a=b", "", -5, None])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert guard_cell(value) == value


def test_lines_can_be_read_back() -> None:
    rows = [["a,b", 'quo"te', "line\nbreak", 5, None]]
    assert list(csv.reader(io.StringIO(csv_lines(rows).decode(), newline=""))) == [
        ["a,b", 'quo"te', "line\nbreak", "5", ""]
    ]


def job(attempts: int) -> Job:
    return Job(
        id=1,
        queue="q",
        lock=None,
        queueing_lock=None,
        task_name="t",
        task_kwargs={},
        attempts=attempts,
    )


def pause_seconds(attempts: int) -> tuple[float, float]:
    """Return bounds of the pause, because the clock advances during the call."""
    before = datetime.now(UTC)
    decision = Backoff().get_retry_decision(exception=RuntimeError(), job=job(attempts))
    assert decision is not None
    assert decision.retry_at is not None
    return (decision.retry_at - datetime.now(UTC)).total_seconds(), (
        decision.retry_at - before
    ).total_seconds()


def test_pauses_double_and_differ() -> None:
    for attempts, middle in enumerate((2, 4, 8, 16)):
        pauses = [pause_seconds(attempts) for _ in range(50)]
        assert middle * 0.5 <= min(most for _, most in pauses)
        assert max(least for least, _ in pauses) <= middle * 1.5
        assert max(least for least, _ in pauses) > min(most for _, most in pauses), (
            "all pauses are the same"
        )


def test_a_job_is_set_aside_after_its_attempts() -> None:
    assert (
        Backoff().get_retry_decision(exception=RuntimeError(), job=job(MAX_ATTEMPTS - 2))
        is not None
    )
    assert Backoff().get_retry_decision(exception=RuntimeError(), job=job(MAX_ATTEMPTS - 1)) is None


def test_a_job_that_a_shutdown_interrupted_starts_again_whatever_its_attempts() -> None:
    decision = Backoff().get_retry_decision(
        exception=asyncio.CancelledError(), job=job(MAX_ATTEMPTS + 3)
    )
    assert decision is not None


def test_a_lost_job_is_back_within_thirty_seconds() -> None:
    assert stalled.STALLED_SECONDS + stalled.LOOK_SECONDS + stalled.POLL_SECONDS <= 30
    assert stalled.STALLED_SECONDS >= 3 * stalled.HEARTBEAT_SECONDS


def test_a_fresh_heartbeat_is_healthy_and_an_old_or_absent_one_is_not(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    assert "no heartbeat" in (health.problem(beat) or "")
    beat.touch()
    assert health.problem(beat) is None
    os.utime(beat, (0, 0))
    assert "more than 20 s" in (health.problem(beat) or "")


def test_the_worker_is_healthy_when_each_of_its_processes_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "FOLDER", tmp_path)
    health.heartbeat_file(0).touch()
    monkeypatch.setenv("WORKER_PROCESSES", "2")
    assert health.main() == 1
    assert "worker.1.heartbeat" in capsys.readouterr().out
    health.heartbeat_file(1).touch()
    assert health.main() == 0


def test_a_blocked_process_ends_before_its_jobs_are_moved_and_before_it_is_unhealthy() -> None:
    assert 3 * health.BEAT_SECONDS < health.STUCK_SECONDS
    assert health.STUCK_SECONDS + health.BEAT_SECONDS < stalled.STALLED_SECONDS
    assert health.STUCK_SECONDS + health.BEAT_SECONDS < health.MAX_AGE_SECONDS


def test_what_a_worker_does_beside_its_jobs_goes_on_after_any_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    async def fail() -> None:
        calls.append(len(calls))
        if len(calls) > 2:
            raise asyncio.CancelledError
        raise (psycopg.OperationalError("away") if len(calls) == 1 else ValueError("a defect"))

    with caplog.at_level(logging.INFO, "worker.loop"), suppress(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(every(0.01, fail), 30))
    assert len(calls) == 3
    assert [record.levelname for record in caplog.records[:2]] == ["INFO", "ERROR"]


def test_memory_is_counted_by_its_share(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    assert used_bytes(rollup) == 0
    rollup.write_text(
        "7f00-7fff ---p 00:00 0 [rollup]\nRss: 90 kB\nPss: 60 kB\nPss_Dirty: 50 kB\n",
        encoding="ascii",
    )
    assert used_bytes(rollup) == 60 * 1024
    assert share_bytes(1000, 1) == 800
    assert share_bytes(1200, 2) == 320, "the supervisor has a share too"
    assert share_bytes(None, 2) is None


@pytest.mark.parametrize("module", ["worker.health", "api.health.probe"])
def test_health_checks_load_nothing_but_the_standard_library(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "packages = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = packages & {'fastapi', 'sqlalchemy', 'pydantic', 'psycopg'}\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_api_never_imports_the_worker() -> None:
    root = Path(health.__file__).parents[1] / "api"
    for path in root.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert not [text for text in lines if text.startswith(("import worker", "from worker"))], (
            path
        )


def test_the_first_signal_in_a_drain_for_memory_lets_the_jobs_end_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    loop = WorkerLoop(WorkerSettings(database_password=SecretStr("7fKq-mW2z-Rt9x-Lp4v")), 0)
    loop._drain("memory")
    loop._signal(signal.SIGTERM)
    assert ended == []
    loop._signal(signal.SIGTERM)
    assert ended == [128 + signal.SIGTERM]
