"""At the end of the window the old slot stops and the schema contracts, unless a deploy began."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import ledger, window
from stack.runner import Result
from stack.stories import retire

from tests.scripts.imitation import HEAD, Host, furnish
from tests.scripts.recording import RecordingRunner

DROPPED = "2026_03_01_0000"
STOP = "stop api-green worker-green"


@pytest.fixture
def host() -> Host:
    """A host on which blue is live, and green, the former live slot, is warm."""
    return Host(running={"nginx", "postgres", "redis", "api-blue", "worker-blue", "api-green"})


@pytest.fixture
def project(checkout: Path) -> Project:
    return furnish(checkout)


def run(host: Host, project: Project, *, after_seconds: float = 600) -> None:
    entry = len(ledger.entries(project))
    retire.run(host, project, "green", "older", after_seconds=after_seconds, entry=entry)


def test_it_waits_for_the_window_and_stops_the_slot(host: Host, project: Project) -> None:
    run(host, project)
    assert host.now == 600
    assert host.changes() == [STOP]
    entry = ledger.entries(project)[-1]
    assert (entry["action"], entry["slot"], entry["release"], entry["to"], entry["result"]) == (
        "retire",
        "green",
        "older",
        "old",
        "done",
    )


def test_the_post_migrations_of_the_live_release_follow_the_stop(
    host: Host, project: Project
) -> None:
    host.labels["old"] = f"{HEAD}:pre,{DROPPED}:post"
    host.reply("--no-TTY migrate", Result(0, f"one\nmigrated: {HEAD} -> {DROPPED}\n"))
    run(host, project)
    assert host.changes() == [STOP, "run"]
    assert host.environments[-1] == {"MIGRATE_TAG": "blue", "MIGRATE_CONFIRM": "yes"}
    assert ledger.entries(project)[-1]["applied"] == f"migrated: {HEAD} -> {DROPPED}"


@pytest.mark.parametrize(
    "head", [HEAD, "", "2030_01_01_0000"], ids=["at the head", "unreadable", "unknown"]
)
def test_where_nothing_is_pending_nothing_is_migrated(
    host: Host, project: Project, head: str
) -> None:
    host.head = head
    run(host, project)
    assert host.changes() == [STOP]


def deploy_meanwhile(host: Host, project: Project) -> None:
    ledger.record(RecordingRunner(), project, "deploy", to="new", result="begun")


def switch_back(host: Host, project: Project) -> None:
    host.live = "green"


def switch_back_to_the_same_release(host: Host, project: Project) -> None:
    host.live, host.tags["blue"] = "green", "older"


def place_another(host: Host, project: Project) -> None:
    host.tags["green"] = "new"


@pytest.mark.parametrize(
    "happen", [deploy_meanwhile, switch_back, switch_back_to_the_same_release, place_another]
)
def test_it_leaves_alone_what_something_newer_has_touched(
    host: Host, project: Project, happen: Callable[[Host, Project], None]
) -> None:
    entry = len(ledger.entries(project))
    happen(host, project)
    entries = len(ledger.entries(project))
    retire.run(host, project, "green", "older", after_seconds=0, entry=entry)
    assert host.changes() == []
    assert "left alone" in host.said[-1]
    assert len(ledger.entries(project)) == entries


def test_it_gives_up_within_seconds_of_a_newer_deploy(host: Host, project: Project) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        host.now += seconds
        naps.append(seconds)
        if len(naps) == 2:
            deploy_meanwhile(host, project)

    host.sleep = sleep  # type: ignore[method-assign]
    run(host, project)
    assert host.changes() == []
    assert host.now == 2 * retire.POLL_SECONDS


def test_a_deploy_that_was_refused_before_any_effect_does_not_cancel_it(
    host: Host, project: Project
) -> None:
    entry = len(ledger.entries(project))
    ledger.record(
        RecordingRunner(), project, "deploy", to="", result="failed", reason="the disk is full"
    )
    retire.run(host, project, "green", "older", after_seconds=0, entry=entry)
    assert host.changes() == [STOP]


def test_a_migration_that_fails_is_an_error(host: Host, project: Project) -> None:
    host.labels["old"] = f"{HEAD}:pre,{DROPPED}:post"
    host.reply("--no-TTY migrate", Result(1, err="the reason"))
    with pytest.raises(Failure):
        run(host, project)
    assert "api-blue" in host.running


def test_it_is_started_with_the_window_of_the_settings_and_the_ledger_as_it_is(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.schedule_end(host, project, "green", "older")
    assert host.ran[-1].endswith("-m stack retire green older --after 600 --entry 2")
    shorter = Project(project.root, {**project.values, "ROLLBACK_WINDOW_SECONDS": "5"})
    window.schedule_end(host, shorter, "green", "older")
    assert "--after 5 " in host.ran[-1]
    assert host.environments[-1] == {"PYTHONPATH": str(project.root / "scripts")}


@pytest.mark.parametrize(
    ("last", "is_due"),
    [
        (("deploy", "done"), True),
        (("rollback", "done"), True),
        (("retire", "done"), False),
        (("deploy", "rolled back"), False),
    ],
)
def test_a_window_that_a_reboot_cut_off_begins_again(
    host: Host, project: Project, last: tuple[str, str], is_due: bool
) -> None:
    ledger.record(host, project, last[0], to="old", result=last[1])
    before, after = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    assert not window.resume(host, project, booted_at=before), "a window began without a reboot"
    assert bool(window.resume(host, project, booted_at=after)) is is_due
    assert host.has_run("retire green older --after 600") is is_due


def ends(seconds: float) -> dict[str, str]:
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    return {window.ENDS: end.isoformat(timespec="seconds")}


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_a_window_that_is_over_and_that_nothing_ended_ends_soon(
    host: Host, project: Project, action: str
) -> None:
    """Its process was killed, or the deploy was killed before it started the process."""
    booted_at = datetime.now(UTC) - timedelta(hours=1)
    ledger.record(host, project, action, to="old", result="done", **ends(-30))
    assert not window.resume(host, project, booted_at), "its process may wait for the lock"
    ledger.record(host, project, action, to="old", result="done", **ends(-90))
    assert "overdue" in window.resume(host, project, booted_at)
    assert host.ran[-1].endswith("retire green older --after 30 --entry 4")
    assert [name for _, name, _ in window.read_rows(project)] == ["window"]


@pytest.mark.parametrize(
    ("action", "result"),
    [("retire", "done"), ("retire", "failed"), ("deploy", "begun"), ("deploy", "rolled back")],
)
def test_a_window_that_something_has_ended_is_not_overdue(
    host: Host, project: Project, action: str, result: str
) -> None:
    ledger.record(host, project, "deploy", to="old", result="done", **ends(-900))
    ledger.record(host, project, action, to="old", result=result)
    assert window.resume(host, project, datetime.now(UTC)) == ""
    assert window.read_rows(project) == []


def test_a_deploy_that_was_refused_leaves_a_window_overdue(host: Host, project: Project) -> None:
    ledger.record(host, project, "deploy", to="old", result="done", **ends(-900))
    ledger.record(host, project, "deploy", to="", result=ledger.NOT_BEGUN)
    assert window.read_rows(project)
    assert window.resume(host, project, datetime.now(UTC))


@pytest.mark.parametrize(("rest", "after"), [(300, 300), (3600, 600), (-20, 30)])
def test_after_a_reboot_the_rest_of_the_window_goes_on(
    host: Host, project: Project, rest: int, after: int
) -> None:
    ledger.record(host, project, "deploy", to="old", result="done", **ends(rest))
    assert window.resume(host, project, datetime.now(UTC) + timedelta(seconds=1))
    seconds = float(host.ran[-1].split("--after ")[1].split()[0])
    assert after - 3 <= seconds <= after


@pytest.mark.parametrize("end", [None, "", "soon", "2020-01-01T00:00:00"])
def test_a_ledger_of_an_earlier_version_has_no_overdue_window(
    host: Host, project: Project, end: str | None
) -> None:
    ledger.record(host, project, "deploy", to="old", result="done", window_ends=end)
    assert window.resume(host, project, datetime.now(UTC) - timedelta(hours=1)) == ""
    assert window.read_rows(project) == []


def test_of_two_processes_for_one_window_the_second_does_nothing(
    host: Host, project: Project
) -> None:
    entry = len(ledger.entries(project))
    for _ in range(2):
        retire.run(host, project, "green", "older", after_seconds=0, entry=entry)
    assert host.changes() == [STOP]
    assert [each["action"] for each in ledger.entries(project)[entry:]] == ["retire"]


def test_a_window_of_any_length_has_an_end(project: Project) -> None:
    longest = Project(project.root, {**project.values, "ROLLBACK_WINDOW_SECONDS": "9" * 30})
    assert datetime.fromisoformat(window.facts(longest)[window.ENDS]) > datetime.now(UTC)
