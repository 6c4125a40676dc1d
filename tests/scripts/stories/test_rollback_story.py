"""`rollback.sh` finds its target, restarts no warm slot, and respects the schema."""

import errno
from pathlib import Path

import pytest
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, Failure
from stack.parts import ledger, slots, window
from stack.runner import Result
from stack.stories import rollback

from tests.scripts.imitation import (
    ANEW,
    HEAD,
    RENAME,
    UP,
    Host,
    failure_of,
    furnish,
)
from tests.scripts.recording import RecordingRunner

ADDED, DROPPED = "2026_02_01_0000", "2026_03_01_0000"
WARM = ["switch green", "up worker-green", "kill worker-blue"]
COLD = ["place older in green", "up api-green", *WARM]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(checkout: Path) -> Project:
    return furnish(checkout)


def run(host: Host, project: Project, release: str = "") -> None:
    rollback.run(host, project.root, release, 0)


def failure(host: Host, project: Project, release: str = "") -> Failure:
    return failure_of(lambda: run(host, project, release))


def record(
    project: Project, release: str, result: str = "done", action: str = "deploy", was: str = ""
) -> None:
    ledger.record(RecordingRunner(), project, action, **{"from": was}, to=release, result=result)


def test_a_warm_slot_is_made_live_by_a_rename_and_nothing_is_started_before(
    host: Host, project: Project
) -> None:
    host.running.add("api-green")
    run(host, project)
    assert host.changes() == WARM
    assert host.said[-1] == "live: release older in slot green, answering at https://localhost:8443"


def test_a_cold_one_is_placed_started_and_tried_first(host: Host, project: Project) -> None:
    run(host, project)
    assert host.changes() == COLD
    assert host.steps() == ["check", "start", "smoke test", "switch", "workers"]


@pytest.mark.parametrize("running", [set(), {"api-green"}], ids=["cold", "warm"])
def test_a_release_whose_own_name_was_removed_is_taken_from_its_slot(
    host: Host, project: Project, running: set[str]
) -> None:
    del host.tags["older"]
    host.running |= running
    run(host, project)
    assert host.changes() == (WARM if running else COLD[1:])


def test_a_warm_slot_with_another_release_is_not_taken_for_the_target(
    host: Host, project: Project
) -> None:
    host.running.add("api-green")
    host.tags |= {"oldest": "oldest"}
    run(host, project, "oldest")
    assert host.changes() == ["place oldest in green", *COLD[1:]]


def test_a_warm_slot_that_is_not_ready_is_tried_before_the_switch(
    host: Host, project: Project
) -> None:
    host.running.add("api-green")
    host.reply("8084/readyz", Result(0, "HTTP/1.1 503 .\r\n\r\n{}"))
    failed = failure(host, project)
    assert "the smoke test of release older failed" in failed.observation
    assert (failed.code, host.live) == (1, "blue")


@pytest.mark.parametrize("running", [set(), {"api-green"}], ids=["cold", "warm"])
@pytest.mark.parametrize("beside", ["ready", "degraded"])
def test_a_target_that_is_degraded_beside_a_ready_live_slot_is_named_and_made_live(
    host: Host, project: Project, running: set[str], beside: str
) -> None:
    host.running |= running
    head = "HTTP/1.1 200 .\r\nX-Slipway-Release: older\r\n\r\n"
    checks = '"checks": {"redis": {"ok": false, "error": "WRONGPASS"}}'
    host.reply("8084/readyz", Result(0, f'{head}{{"status": "degraded", {checks}}}'))
    host.reply("8083/readyz", Result(0, f'{head}{{"status": "{beside}"}}'))
    run(host, project)
    warning = "slot green is degraded (redis: WRONGPASS), and the live slot blue is ready"
    assert (f"    warning: {warning}" in host.said) == (beside == "ready")
    assert host.live == "green"


def test_nothing_is_built_pulled_or_migrated(host: Host, project: Project) -> None:
    run(host, project)
    assert {command.partition(" -")[0] for command in host.ran if command.startswith("docker")} == {
        "docker tag slipway/app:older slipway/app:green",
        "docker compose up",
        "docker compose exec",
        "docker compose kill",
    }


def test_the_target_is_the_newest_good_release_of_the_ledger(host: Host, project: Project) -> None:
    host.tags |= {"good": "good", "bad": "bad"}
    record(project, "good")
    record(project, "bad", "rolled back")
    record(project, "old", "done", "up")
    run(host, project)
    assert host.tags["green"] == "good"


def test_a_release_whose_image_is_gone_is_passed_over(host: Host, project: Project) -> None:
    record(project, "pruned")
    record(project, "old")
    run(host, project)
    assert host.tags["green"] == "older"


def test_without_a_ledger_it_is_the_release_of_the_idle_slot(host: Host, project: Project) -> None:
    project.ledger.unlink()
    run(host, project)
    assert (host.live, host.tags["green"]) == ("green", "older")


def test_a_release_that_was_rolled_back_from_by_hand_is_not_gone_back_to(
    host: Host, project: Project
) -> None:
    host.tags |= {"oldest": "oldest"}
    project.ledger.unlink()
    for release in ("oldest", "older", "old"):
        record(project, release)
    run(host, project)
    host.ran.clear()
    run(host, project)
    assert host.tags[host.live] == "oldest"


def test_without_any_release_to_go_back_to_it_is_refused(host: Host, project: Project) -> None:
    project.ledger.unlink()
    del host.tags["green"], host.tags["older"]
    failed = failure(host, project)
    assert failed.observation == "there is no release to go back to from old"
    assert (failed.code, failed.runbook, host.ran) == (1, "rollback-refused", [])


@pytest.mark.parametrize(
    ("release", "observed"),
    [
        ("old", "release old (deployment 2) is live already"),
        ("no-such", "the image of release no-such is not here"),
    ],
)
def test_what_cannot_be_gone_back_to_is_refused_before_any_effect(
    host: Host, project: Project, release: str, observed: str
) -> None:
    entries = len(ledger.entries(project))
    failed = failure(host, project, release)
    assert failed.observation == observed
    assert (failed.code, failed.runbook, host.ran) == (1, "rollback-refused", [])
    assert len(ledger.entries(project)) == entries


def test_a_missing_image_is_answered_with_those_that_are_kept(host: Host, project: Project) -> None:
    assert failure(host, project, "no-such").hints == ["these are kept: older, old"]


def test_past_a_post_migration_it_is_refused_and_says_what_can_be_done(
    host: Host, project: Project
) -> None:
    host.labels = {"older": f"{HEAD}:pre", "old": f"{HEAD}:pre,{ADDED}:pre,{DROPPED}:post"}
    host.head = DROPPED
    failed = failure(host, project)
    assert (
        failed.observation
        == f"the schema is too new for release older: {DROPPED} removed a part that it needs"
    )
    assert failed.hints[0] == "deploy a corrected release: ./scripts/deploy.sh"
    assert (failed.runbook, host.ran, host.live) == ("rollback-refused", [], "blue")


@pytest.mark.parametrize("head", [HEAD, ADDED])
def test_across_a_pre_migration_it_goes(host: Host, project: Project, head: str) -> None:
    host.labels = {"older": f"{HEAD}:pre", "old": f"{HEAD}:pre,{ADDED}:pre,{DROPPED}:post"}
    host.head = head
    run(host, project)
    assert host.live == "green"


def test_a_pre_migration_of_a_release_that_was_taken_back_is_in_nobody_s_way(
    host: Host, project: Project
) -> None:
    host.tags["bad"] = "bad"
    host.labels = {"bad": f"{HEAD}:pre,{ADDED}:pre"}
    host.head = ADDED
    run(host, project)
    assert host.live == "green"


def test_a_head_that_no_release_here_knows_is_refused(host: Host, project: Project) -> None:
    host.head = "2030_01_01_0000"
    failed = failure(host, project)
    assert "2030_01_01_0000" in failed.observation
    assert (host.ran, host.live) == ([], "blue")


def test_it_is_recorded_and_told_and_the_slot_before_is_retired_later(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_COMMAND", "notify me")
    run(host, project)
    begun, done = ledger.entries(project)[-2:]
    for entry, result in ((begun, "begun"), (done, "done")):
        facts = tuple(entry[key] for key in ("action", "from", "to", "slot", "result"))
        assert facts == ("rollback", "old", "older", "green", result)
    assert host.ran[host.position("-m stack retire")].endswith(
        "retire blue old --after 600 --entry 4"
    )
    told = host.environments[host.position("notify me")]
    assert (told["SLIPWAY_RESULT"], told["SLIPWAY_FROM"], told["SLIPWAY_TO"]) == (
        "rolled back",
        "old",
        "older",
    )


def test_a_dry_run_tells_the_same_commands_and_changes_nothing(
    host: Host, project: Project
) -> None:
    dry = Host(is_dry=True)
    run(dry, project)
    assert (dry.changes(), dry.live, len(ledger.entries(project))) == (COLD, "blue", 2)


def test_a_refusal_and_a_dry_run_keep_the_settings_of_the_rollback_before(
    host: Host, project: Project
) -> None:
    before = project.root / ".env.before"
    before.write_text("LOG_LEVEL=DEBUG\n", encoding="utf-8")
    failure(host, project, "no-such")
    run(Host(is_dry=True), project)
    assert before.read_text(encoding="utf-8") == "LOG_LEVEL=DEBUG\n"


@pytest.mark.parametrize("command", [f"{UP} api-green", "docker tag slipway/app:older"])
def test_a_cold_start_that_fails_leaves_what_is_live(
    host: Host, project: Project, command: str
) -> None:
    host.reply(command, Result(1, err="the reason"))
    failed = failure(host, project)
    assert (failed.code, host.live) == (1, "blue")
    assert {"api-blue", "worker-blue"} <= host.running
    assert not host.has_run(RENAME.format("green"))
    assert ledger.entries(project)[-1]["result"] == "failed"
    assert any(hint.startswith("logs and health records: ") for hint in failed.hints)


def test_a_failure_after_the_rename_goes_back_to_what_was_live(
    host: Host, project: Project
) -> None:
    host.reply(f"{ANEW} worker-green", Result(1, err="the reason"))
    failed = failure(host, project)
    assert failed.code == ROLLED_BACK
    assert host.live == "blue"
    assert {"api-blue", "worker-blue"} <= host.running


@pytest.mark.parametrize(
    "stopped", [KeyboardInterrupt("SIGTERM"), OSError(errno.ENOSPC, "No space left on device")]
)
@pytest.mark.parametrize("command", [f"{UP} api-green", f"{ANEW} worker-green"])
def test_stopped_by_hand_or_by_a_full_disk_it_stays_at_what_was_live(
    host: Host, project: Project, command: str, stopped: BaseException
) -> None:
    def stop() -> Result:
        raise stopped

    host.reply(command, stop)
    assert failure(host, project).code == (1 if "api" in command else ROLLED_BACK)
    assert host.live == "blue"
    assert {"api-blue", "worker-blue"} <= host.running
    assert not {"api-green", "worker-green"} & host.running


def test_an_undo_that_fails_too_needs_a_person(host: Host, project: Project) -> None:
    host.reply(f"{ANEW} worker-green", Result(1, err="the reason"))
    host.reply(RENAME.format("blue"), Result(1, err="the reason"))
    failed = failure(host, project)
    assert failed.code == NEEDS_A_PERSON
    assert any(hint.startswith("undo failed too: ") for hint in failed.hints)
    assert host.live == "green"
    assert "api-green" in host.running, "the only slot that answers was removed"


def test_a_failed_cold_start_leaves_the_slot_and_the_settings_as_they_were(
    host: Host, project: Project
) -> None:
    host.tags |= {"oldest": "oldest"}
    present = (project.root / ".env").read_text(encoding="utf-8")
    snapshot = ledger.settings_of(project, "oldest")
    snapshot.parent.mkdir()
    snapshot.write_text(present.replace("LOG_LEVEL=", "LOG_LEVEL=DEBUG"), encoding="utf-8")
    host.ill.add("oldest")
    failure(host, project, "oldest")
    assert host.tags["green"] == "older"
    assert "api-green" not in host.running
    assert (project.root / ".env").read_text(encoding="utf-8") == present


def test_a_failed_rollback_is_told(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_COMMAND", "notify me")
    host.reply(f"{UP} api-green", Result(1, err="the reason"))
    failure(host, project)
    assert host.environments[host.position("notify me")]["SLIPWAY_RESULT"] == "failed"


def test_an_exception_that_no_step_foresees_goes_back_and_is_recorded(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ValueError("out of range")

    monkeypatch.setattr(slots, "drain_worker", break_down)
    failed = failure(host, project)
    assert failed.observation == "a fault of these scripts: ValueError: out of range"
    assert "Traceback" in failed.evidence
    assert (failed.code, failed.runbook, host.live) == (ROLLED_BACK, "roll-back", "blue")
    assert ledger.entries(project)[-1]["result"] == "rolled back"


def test_what_fails_after_a_rollback_was_recorded_needs_a_person(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ValueError("out of range")

    monkeypatch.setattr(window, "schedule_end", break_down)
    failed = failure(host, project)
    assert (failed.code, host.live) == (NEEDS_A_PERSON, "green")
    assert "release older is live" in failed.observation
    assert ledger.entries(project)[-1]["result"] == "done"
