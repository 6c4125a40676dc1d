"""`deploy.sh` and `status.sh` with a counter that is dead, or gets few or no datagrams."""

from dataclasses import replace

import pytest
from stack.config.project import Project
from stack.failure import ROLLED_BACK
from stack.https import Answer, Question
from stack.parts import ledger
from stack.runner import Result

from tests.scripts.counting import MARK, SOCKET, Counting
from tests.scripts.imitation import Host, deploy_on, failed_deploy
from tests.scripts.recording import RecordingRunner
from tests.scripts.status_rows import rows


def test_a_counter_that_does_not_answer_is_refused_before_any_effect(
    host: Host, project: Project
) -> None:
    host.reply(SOCKET, Result(7, err="curl: (7) Couldn't connect to server\n"))
    failed = failed_deploy(host, project)
    assert "cannot watch: the counter gives no counts" in failed.observation
    assert failed.runbook == "deploy-failed-before-the-switch"
    assert host.changes() == []
    assert ledger.entries(project)[-1]["result"] == ledger.NOT_BEGUN


def test_without_a_watch_a_deploy_needs_no_counter(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCH_SECONDS", "0")
    host.reply(SOCKET, Result(7))
    deploy_on(host, project)
    assert host.live == "green"


def test_a_counter_that_sees_nothing_is_refused_before_the_switch(
    host: Host, project: Project
) -> None:
    host.door = lambda question: host.answer(replace(question, headers={}))
    failed = failed_deploy(host, project)
    assert "does not know the requests that nginx has just answered" in failed.observation
    assert not any(change.startswith("switch") for change in host.changes())
    assert host.live == "blue"


def test_a_stack_that_is_older_than_the_counter_is_deployed_to_without_replacing_nginx(
    host: Host, project: Project
) -> None:
    host.reply(SOCKET, Result(3))
    deploy_on(host, project)
    assert host.live == "green"
    expected = "no counter yet: ./scripts/up.sh --apply nginx adds it; 33 of 33"
    assert any(expected in line for line in host.said)
    assert not host.has_run("up --detach --no-deps --wait --wait-timeout 60 nginx")


def test_there_a_release_that_gives_no_answers_is_taken_back(host: Host, project: Project) -> None:
    host.reply(SOCKET, Result(3))

    def answer(question: Question) -> Answer:
        is_watched = MARK in question.headers and host.live == "green"
        return Answer(503, "{}") if is_watched else host.answer(question)

    host.door = answer
    failed = failed_deploy(host, project)
    assert "33 of 33 requests of the watch failed" in failed.observation
    assert host.live == "blue"


def test_a_configuration_of_nginx_that_does_not_feed_the_counter_yet_is_replaced_first(
    host: Host, project: Project
) -> None:
    """The first deploy after an update installs the configuration that sends datagrams."""
    (project.root / "nginx/conf.d/a.conf").write_text("# newer\n", encoding="utf-8")

    def answer(question: Question) -> Answer:
        has_reloaded = any(command.endswith("entrypoint.sh reload") for command in host.ran)
        return host.answer(question if has_reloaded else replace(question, headers={}))

    host.door = answer
    deploy_on(host, project)
    assert host.live == "green"


@pytest.fixture
def counting(well: RecordingRunner) -> Counting:
    counting = Counting(well.clock)
    well.reply(SOCKET, lambda: Result(0, counting.ask("/counts")[1]))
    return counting


def test_status_shows_the_requests_of_the_live_slot_and_what_was_lost(
    well: RecordingRunner, loaded: Project, counting: Counting
) -> None:
    counting.add("blue", 200, 96)
    counting.add("blue", 500, 3)
    counting.add("red", 502)  # no slot answered
    counting.add("green", 500, 50)
    counting.add("", 501, 50)
    counting.lost = 7
    counting.ask("/counts")  # the report of a health check; a second report confirms a loss
    is_well, text = rows(well, loaded)["requests"]
    assert is_well, "a client can cause errors"
    assert text.startswith("100 in the last minute, 4.0% errors, p95 10 ms; 7 of 207 not counted")


def test_a_counter_that_lost_most_requests_is_not_ok(
    well: RecordingRunner, loaded: Project, counting: Counting
) -> None:
    counting.add("blue", 200, 6)
    counting.lost = 7
    counting.ask("/counts")
    is_well, text = rows(well, loaded)["requests"]
    assert not is_well
    assert "7 of 13 not counted" in text


def test_a_counter_that_does_not_answer_is_not_ok(well: RecordingRunner, loaded: Project) -> None:
    well.reply(SOCKET, Result(7, err="curl: (7) Couldn't connect to server\n"))
    is_well, text = rows(well, loaded)["requests"]
    assert not is_well
    assert "the counter gives no counts: curl: (7)" in text


def test_a_route_that_fails_behind_the_front_door_is_noticed_without_traffic(
    host: Host, project: Project
) -> None:
    def answer(question: Question) -> Answer:
        shown = host.answer(question)
        is_bad = question.path == "/v1/items" and host.live == "green"
        return replace(shown, status=500) if is_bad else shown

    host.door = answer
    failed = failed_deploy(host, project)
    assert "11 of 11 requests of the watch for /v1/items failed" in failed.observation
    assert (failed.code, host.live) == (ROLLED_BACK, "blue")


def test_errors_of_a_single_address_are_the_last_words_of_a_deploy(
    host: Host, project: Project
) -> None:
    def answer(question: Question) -> Answer:
        if host.live == "green" and MARK in question.headers:
            host.counting.add("green", 500, 30, clients=1)
        return host.answer(question)

    host.door = answer
    deploy_on(host, project)
    said = "\n".join(host.said).splitlines()
    (end,) = (n for n, line in enumerate(said) if line.startswith("deployed, NOT judged: "))
    assert said[end].endswith(" answers were errors, all to 1 address")
    assert said[end + 1 : -1] == [
        "  its errors  ./scripts/logs.sh api-green",
        "  back        ./scripts/rollback.sh",
    ]
    assert said[-1].startswith("live: release ")
