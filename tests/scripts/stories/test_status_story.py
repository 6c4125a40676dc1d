"""Each row of `status.sh` is ok or not; one fault makes the exit code 1."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from stack.config.project import Project, load
from stack.parts import applied, ledger, slot_files
from stack.runner import Result
from stack.stories import status

from tests.scripts.imitation import furnish, set_values
from tests.scripts.recording import RecordingRunner
from tests.scripts.status_rows import HEALTHY, Door, containers, expiry, rows


def test_a_stack_that_is_well_is_shown_on_one_screen(
    well: RecordingRunner, loaded: Project
) -> None:
    furnish(loaded.root)
    shown = rows(well, loaded)
    ill = {name for name, (is_well, _) in shown.items() if not is_well}
    assert "counter" not in shown, "its counts are shown, in the row `requests`"
    assert ill <= {"disk engine", "disk state"}  # these rows show the disk of the test machine
    assert set(shown) >= {
        "live",
        *(set(HEALTHY) - {"counter"}),
        "migrations",
        "queue",
        "redis data",
        "certificate",
        "last deploy",
        "clock",
    }
    assert shown["live"][1] == "slot blue, release r-1", "deployment 2 is of another release"
    assert well.said[-1] == "live: release r-1 in slot blue, answering at https://localhost:8443"
    assert len(well.said) <= 24  # the height of a terminal


def test_settings_that_wait_are_rows_that_are_ok_with_the_command_that_applies_them(
    well: RecordingRunner, loaded: Project
) -> None:
    furnish(loaded.root)
    applied.keep(RecordingRunner(), loaded, ["postgres"], 4)
    assert "settings" not in rows(well, loaded)
    set_values(loaded.root, POSTGRES_MEMORY="300m")
    line = "not applied: POSTGRES_MEMORY: ./scripts/up.sh --apply postgres, about 4 s of 503"
    assert rows(well, load(loaded.root))["settings"] == (True, line)
    set_values(loaded.root, POSTGRES_MEMORY="", LOG_LEVEL="DEBUG")
    line = "not applied: LOG_LEVEL: ./scripts/deploy.sh"
    assert rows(well, load(loaded.root))["settings"] == (True, line)


def test_a_slot_without_its_file_is_not_well_because_compose_would_replace_it(
    well: RecordingRunner, loaded: Project
) -> None:
    furnish(loaded.root)
    file = slot_files.path_of(loaded, "blue")
    file.unlink()
    text = f"slot blue, release r-1; {file} is missing: ./scripts/up.sh writes it"
    assert rows(well, loaded)["live"] == (False, text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"release": "r-0"}, "release r-0 from slot blue"),
        ({"slot": "green"}, "release r-1 from slot green"),
        ({"release": "", "status": 503}, "503"),
        ({"release": "", "status": 0, "error": "timed out"}, "timed out"),
    ],
)
def test_a_front_door_that_does_not_answer_as_the_link_says_is_not_ok(
    well: RecordingRunner, door: Door, loaded: Project, change: dict[str, object], said: str
) -> None:
    vars(door).update(change)
    is_well, text = rows(well, loaded)["live"]
    assert not is_well
    assert text.endswith(f"the front door shows {said}")


def test_a_slot_without_a_release_is_not_ok(
    well: RecordingRunner, door: Door, loaded: Project
) -> None:
    well.reply("image.version", Result(1))
    door.release = ""
    assert rows(well, loaded)["live"][0] is False


@pytest.mark.parametrize("state", ["restarting", "exited", "paused"])
def test_a_service_that_does_not_run_is_not_ok(
    well: RecordingRunner, loaded: Project, state: str
) -> None:
    well.reply("docker compose ps", containers(worker_blue=state))
    assert rows(well, loaded)["worker-blue"] == (False, state)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_service_that_has_no_container_is_not_ok(
    well: RecordingRunner, loaded: Project, name: str
) -> None:
    well.reply("docker compose ps", containers(**{name: "absent"}))
    assert rows(well, loaded).get(name, (True, "no row"))[0] is False


def test_a_stopped_idle_slot_is_ok(well: RecordingRunner, loaded: Project) -> None:
    well.reply("docker compose ps", containers(api_green="exited"))
    assert rows(well, loaded)["api-green"] == (True, "exited")


def test_a_worker_that_runs_in_the_idle_slot_is_not_ok_while_its_warm_api_is(
    well: RecordingRunner, loaded: Project
) -> None:
    well.reply("docker compose ps", containers(api_green="running", worker_green="running"))
    shown = rows(well, loaded)
    assert shown["api-green"] == (True, "running")
    assert shown["worker-green"] == (
        False,
        "running, in the idle slot, and takes jobs; ./scripts/up.sh stops it",
    )
    well.reply("docker compose ps", containers(worker_green="exited"))
    assert rows(well, loaded)["worker-green"] == (True, "exited")


@pytest.mark.parametrize(
    ("entry", "age_seconds", "is_well"),
    [
        (("rollback", "done"), 5, True),
        (("deploy", "done"), status.DRAIN_SECONDS - 5, True),
        (("deploy", "done"), status.DRAIN_SECONDS + 5, False),
        (("deploy", "begun"), 5, False),
        (("restore", "done"), 5, False),
        (("deploy", "done"), -60, False),  # the clock was set back
    ],
)
def test_a_worker_that_drains_after_a_deploy_or_rollback_is_ok(
    well: RecordingRunner,
    loaded: Project,
    entry: tuple[str, str],
    age_seconds: float,
    is_well: bool,
) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=age_seconds)).isoformat()
    action, result = entry
    ledger.record(RecordingRunner(), loaded, action, result=result, at=at)
    well.reply("docker compose ps", containers(worker_green="running"))
    assert rows(well, loaded)["worker-green"][0] is is_well


def test_no_container_at_all_says_what_starts_them(well: RecordingRunner, loaded: Project) -> None:
    well.reply("docker compose ps", Result(0, ""))
    found = {text for is_well, text in rows(well, loaded).values() if not is_well}
    assert any("./scripts/up.sh" in text for text in found)


@pytest.mark.parametrize(
    ("row", "migrations", "queue"),
    [
        ("2026_11_20_0903|0|0|0|0", True, True),
        ("2026_11_21_0000|0|0|0|0", True, True),  # ahead: a newer release added a migration
        ("2026_11_20_0904|0|0|0|0", True, True),
        ("2026_11_20_0902|0|0|0|0", False, True),
        ("|0|0|0|0", False, True),  # no migration is applied
        ("2026_11_20_0903|5|1|0|61", True, True),
        ("2026_11_20_0903|0|0|2|0", True, False),
        ("2026_11_20_0903|5|4|0|899", True, True),
        ("2026_11_20_0903|5|0|0|900", True, False),  # no worker takes the jobs
    ],
)
def test_the_database_is_not_ok_when_behind_and_the_queue_when_jobs_failed_or_wait_too_long(
    well: RecordingRunner, loaded: Project, row: str, migrations: bool, queue: bool
) -> None:
    well.reply("psql", Result(0, row + "\n"))
    shown = rows(well, loaded)
    assert (shown["migrations"][0], shown["queue"][0]) == (migrations, queue)
    assert ("waits 61 s" in shown["queue"][1]) == row.endswith("61")


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("2026_11_20_0904", "at 2026_11_20_0904"),
        ("2026_11_20_0903", "at 2026_11_20_0903, 2026_11_20_0904 (post) waits"),
        (
            "2026_11_20_0902",
            "at 2026_11_20_0902, 2026_11_20_0903 (pre) waits, 2026_11_20_0904 (post) waits",
        ),
        ("2026_11_21_0000", "at 2026_11_21_0000, which is newer than the live release"),
    ],
)
def test_what_a_database_still_waits_for_is_named(
    well: RecordingRunner, loaded: Project, head: str, text: str
) -> None:
    well.reply("psql", Result(0, f"{head}|0|0|0|0\n"))
    assert rows(well, loaded)["migrations"][1] == text


def test_a_live_release_without_the_label_says_the_head_alone(
    well: RecordingRunner, loaded: Project
) -> None:
    well.reply("slipway.migrations", Result(0, "\n"))
    assert rows(well, loaded)["migrations"] == (True, "at 2026_11_20_0903")


def test_a_database_that_does_not_answer_is_not_ok(well: RecordingRunner, loaded: Project) -> None:
    well.reply("psql", Result(2, err="psql: error: FATAL:  the database system is starting up\n"))
    shown = rows(well, loaded)
    assert (
        shown["migrations"]
        == shown["queue"]
        == (False, "psql: error: FATAL:  the database system is starting up")
    )


@pytest.mark.parametrize(("days", "is_well"), [(31, True), (30, True), (29, False), (-1, False)])
def test_a_certificate_is_not_ok_when_a_third_of_its_life_is_left(
    well: RecordingRunner, door: Door, loaded: Project, days: int, is_well: bool
) -> None:
    door.expires = expiry(days)
    shown = rows(well, loaded)["certificate"]
    assert shown[0] is is_well
    assert shown[1].startswith(f"{days} days left")


@pytest.mark.parametrize(("result", "is_well"), [("done", True), ("rolled back", False)])
def test_the_last_deploy_is_the_newest_readable_line_of_the_ledger(
    well: RecordingRunner, loaded: Project, result: str, is_well: bool
) -> None:
    ledger.record(RecordingRunner(), loaded, "up", to="r-0", result="done")
    ledger.record(RecordingRunner(), loaded, "deploy", to="r-1", result=result)
    with loaded.ledger.open("a", encoding="utf-8") as file:
        file.write('{"action": "dep')  # a full disk cut this line off
    shown = rows(well, loaded)["last deploy"]
    assert shown[0] is is_well
    assert "deploy of r-1 by " in shown[1]


def test_a_full_disk_is_not_ok(
    well: RecordingRunner, loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "DISK_PERCENT_LOW", 101)  # no disk has 101 % free
    assert rows(well, loaded)["disk engine"][0] is False


def test_the_history_is_one_line_an_entry_the_newest_last_and_then_what_is_live(
    well: RecordingRunner, loaded: Project
) -> None:
    ledger.record(
        RecordingRunner(),
        loaded,
        "up",
        **{"from": None},
        to="r-0",
        result="done",
        seconds={"a": 2, "b": 3},
    )
    ledger.record(
        RecordingRunner(),
        loaded,
        "deploy",
        **{"from": "r-0"},
        to="r-1",
        result="rolled back",
        reason="slow",
        deployment=41,
    )
    status.history(well, loaded)
    first, second, live = well.said
    assert first.endswith(" up - -> r-0 done in 5 s")
    assert second.endswith(" deploy r-0 -> r-1 (deployment 41) rolled back: slow")
    assert live.startswith("live: release r-1")
    assert (well.ran, well.written) == ([], [])


@pytest.mark.parametrize(("ahead_seconds", "is_well"), [(-3600, True), (5, True), (60, False)])
def test_a_ledger_that_lies_ahead_of_the_clock_is_not_well(
    well: RecordingRunner, loaded: Project, ahead_seconds: int, is_well: bool
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
    entry = {
        "at": at.isoformat(timespec="seconds"),
        "who": "me",
        "action": "deploy",
        "result": "done",
    }
    loaded.ledger.parent.mkdir(parents=True, exist_ok=True)
    loaded.ledger.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    shown = rows(well, loaded)["clock"]
    assert shown[0] == is_well
    assert ("docs/runbook.md#clock-wrong" in shown[1]) != is_well
