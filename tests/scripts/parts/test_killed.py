"""Tests what `up.sh` does about a deploy or a rollback that was killed."""

from pathlib import Path

import pytest
from stack.config.project import Project
from stack.parts import killed, ledger
from stack.parts.ledger import Deployment
from stack.runner import Result

from tests.scripts.imitation import Host, furnish, place
from tests.scripts.recording import RecordingRunner

LIVE = (
    "{0} of r3 (deployment 3) was killed before its end: it is live, and NOT judged; "
    "go back by ./scripts/rollback.sh, or deploy again by ./scripts/deploy.sh"
)
KILLED = Deployment(3, "r3")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(checkout: Path) -> Project:
    """Blue is live; both slots have had a good deployment."""
    return furnish(checkout)


def record(project: Project, action: str, result: str, deployment: Deployment = KILLED) -> None:
    facts = {"to": deployment.release, "result": result, **deployment.facts}
    ledger.record(RecordingRunner(), project, action, **facts)


def start(host: Host, number: int) -> None:
    """Have an API run in the idle slot, of the deployment with this number."""
    host.running.add("api-green")
    host.reply("ps --all --quiet api-green", Result(0, "c0ffee\n"))
    host.reply("c0ffee", Result(0, f'["SLIPWAY_DEPLOYMENT={number}"]'))


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_what_is_live_and_was_not_judged_is_named_until_it_is_settled(
    host: Host, project: Project, action: str
) -> None:
    host.tags["blue"] = "r3"
    place(project, KILLED, "blue")
    record(project, action, "begun")
    record(project, "deploy", ledger.NOT_BEGUN)
    for _ in range(2):
        assert killed.settle(host, project, "blue") == [LIVE.format(action)]
    assert host.ran == []
    record(project, "deploy", "done")
    assert killed.settle(host, project, "blue") == []


@pytest.mark.parametrize("results", [["begun"], ["begun", "failed"], ["begun", "rolled back"]])
def test_an_idle_slot_whose_deploy_never_succeeded_is_stopped(
    host: Host, project: Project, results: list[str]
) -> None:
    for result in results:
        record(project, "deploy", result)
    start(host, 3)
    lines = killed.settle(host, project, "blue")
    assert lines == ["slot green was stopped: no deploy of r3 (deployment 3) succeeded"]
    assert host.changes() == ["stop api-green worker-green"]
    assert killed.settle(host, project, "blue") == []


def test_a_slot_of_a_rollback_window_is_left_alone(host: Host, project: Project) -> None:
    """The killed deploy has written the slot's file, and has not replaced the container yet."""
    place(project, KILLED, "green")
    record(project, "deploy", "begun")
    start(host, 1)
    assert killed.settle(host, project, "blue") == []
    assert host.changes() == []


def test_a_slot_that_somebody_rolled_back_to_is_left_alone(host: Host, project: Project) -> None:
    """Its deploy was taken back, and then a person made it live by its name."""
    for action, result in (("deploy", "begun"), ("deploy", "rolled back"), ("rollback", "done")):
        record(project, action, result)
    record(project, "deploy", "done", Deployment(4, "r4"))
    start(host, 3)
    assert killed.settle(host, project, "blue") == []
    assert host.changes() == []


def test_a_slot_that_a_rollback_left_is_left_alone(host: Host, project: Project) -> None:
    record(project, "deploy", "done")
    facts = {"to": "r1", "deployment": 1, "from": "r3", "from_deployment": 3}
    ledger.record(RecordingRunner(), project, "rollback", result="done", **facts)
    start(host, 3)
    assert killed.settle(host, project, "blue") == []
    assert host.changes() == []


@pytest.mark.parametrize("number", [0, 9])
def test_a_slot_that_no_entry_knows_is_left_alone(
    host: Host, project: Project, number: int
) -> None:
    record(project, "deploy", "begun")
    start(host, number)
    assert killed.settle(host, project, "blue") == []
    assert host.changes() == []


def test_a_dry_run_stops_nothing(host: Host, project: Project) -> None:
    record(project, "deploy", "begun")
    start(host, 3)
    host.is_dry = True
    assert killed.settle(host, project, "blue") == []
    assert host.ran == []
