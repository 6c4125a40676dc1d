"""The rows of `status.sh` on readiness, the owner, and a deploy that runs or was killed."""

import json
import os
from collections.abc import Iterator

import pytest
from stack.config.project import Project
from stack.parts import fingerprints, ledger, lock, ownership, window
from stack.runner import Result

from tests.scripts.imitation import furnish
from tests.scripts.recording import RecordingRunner
from tests.scripts.status_rows import Door, containers, rows
from tests.scripts.stock import have_containers, make_other_checkout, refuse_login


def test_the_owner_is_one_row_and_a_secret_has_a_row_where_it_is_wrong(
    well: RecordingRunner, loaded: Project
) -> None:
    furnish(loaded.root)
    assert rows(well, loaded)["owner"] == (
        True,
        "none recorded; ./scripts/up.sh records this checkout",
    )
    keeper = RecordingRunner()
    ownership.keep(keeper, loaded)
    fingerprints.keep(keeper, loaded)
    shown = rows(well, loaded)
    text = f"{loaded.root}, on this machine; 4 of 4 secrets have opened their data"
    assert shown["owner"] == (True, text)
    assert "secrets" not in shown
    refuse_login(well, "redis_password")
    is_well, text = rows(well, loaded)["secrets"]
    assert not is_well
    assert text.endswith("redis refuses it: docs/runbook.md#secrets-and-data-do-not-fit")
    (loaded.secrets / "backup_key").write_text("another\r\n", encoding="utf-8", newline="")
    assert "backup_key ends in a carriage return" in rows(well, loaded)["secrets"][1]


def test_another_owner_and_containers_of_a_gone_directory_are_not_well(
    well: RecordingRunner, loaded: Project
) -> None:
    furnish(loaded.root)
    gone = loaded.root.with_name("gone")
    have_containers(well, gone, "worker-blue", "nginx", "api-blue")
    is_well, text = rows(well, loaded)["owner"]
    assert not is_well
    assert text.startswith(
        f"api-blue, nginx, worker-blue mount files of {gone} and cannot restart: "
    )
    other = make_other_checkout(loaded.root)
    have_containers(well, other, "postgres")
    is_well, text = rows(well, loaded)["owner"]
    assert not is_well
    assert f"another checkout, {other}, owns the project slipway" in text
    well.reply("docker container ls", Result(1, err="Cannot connect"))
    assert rows(well, loaded)["owner"][0] is False


READY = '{"status":"ready","checks":{"redis":{"ok":true,"ms":1}}}'
DEGRADED = '{"status":"degraded","checks":{"redis":{"ok":false,"ms":1,"error":"WRONGPASS"}}}'


@pytest.mark.parametrize(
    ("answer", "row"),
    [
        ((200, READY), (True, "ready")),
        ((200, DEGRADED), (False, "degraded: redis: WRONGPASS")),
        ((200, "ok"), (True, "HTTP 200")),
        ((503, '{"status":"unavailable"}'), (False, "unavailable")),
    ],
)
def test_a_degraded_release_is_not_ok(
    well: RecordingRunner,
    door: Door,
    loaded: Project,
    answer: tuple[int, str],
    row: tuple[bool, str],
) -> None:
    door.status, door.body = answer
    assert rows(well, loaded)["readiness"] == row


@pytest.fixture
def deploying(loaded: Project) -> Iterator[None]:
    """A deploy that has begun and holds the lock, in this process."""
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-2", result="begun")
    with lock.exclusive(RecordingRunner(), loaded, "deploy"):
        yield


def test_what_a_running_deploy_does_is_ok(
    well: RecordingRunner, loaded: Project, deploying: None
) -> None:
    well.reply("docker compose ps", containers(worker_green="running", worker_blue="absent"))
    shown = rows(well, loaded)
    assert shown["last deploy"][0]
    assert shown["last deploy"][1].endswith(f"begun, and runs: process {os.getpid()}")
    assert shown["worker-green"][0]
    assert shown["worker-blue"][0]
    well.reply("docker compose ps", containers(api_blue="exited"))
    assert rows(well, loaded)["api-blue"][0] is False, "the API that serves must serve"


def test_a_deploy_that_was_killed_is_not_ok(well: RecordingRunner, loaded: Project) -> None:
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-2", result="begun")
    left = {"command": "deploy", "who": "me", "pid": os.getpid(), "since": "now"}
    (loaded.state / "lock").write_text(json.dumps(left), encoding="utf-8")
    is_well, text = rows(well, loaded)["last deploy"]
    assert not is_well
    assert text.endswith("begun, and nothing runs it any more")


def test_a_window_that_nothing_ended_has_a_row_unless_a_command_runs(
    well: RecordingRunner, loaded: Project
) -> None:
    """The process that ends the window waits for that command, and then ends it."""
    past = {window.ENDS: "2026-01-01T00:10:00+00:00"}
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-1", result="done", **past)
    text = "should have ended at 2026-01-01T00:10:00+00:00, and is open: ./scripts/up.sh ends it"
    assert rows(well, loaded)["window"] == (False, text)
    with lock.exclusive(RecordingRunner(), loaded, "backup"):
        assert "window" not in rows(well, loaded)
    ledger.record(RecordingRunner(), loaded, "retire", to="r-1", result="done")
    assert "window" not in rows(well, loaded)


def test_a_deploy_that_was_refused_is_passed_over(well: RecordingRunner, loaded: Project) -> None:
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-1", result="done")
    ledger.record(RecordingRunner(), loaded, "deploy", to="", result=ledger.NOT_BEGUN)
    is_well, text = rows(well, loaded)["last deploy"]
    assert is_well
    assert "deploy of r-1 by " in text


def test_a_question_that_fails_is_a_row_and_hides_no_other_row(
    well: RecordingRunner, loaded: Project
) -> None:
    well.reply("docker compose ps", Result(1, err="the reason"))
    well.reply("cli.sh info", Result(0, "used_memory:x\n"))
    shown = rows(well, loaded)
    assert shown["services"][0] is False
    assert shown["redis data"][1].startswith("cannot be read: ")
    assert shown["queue"][0]
