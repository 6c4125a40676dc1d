"""Tests the watch after a switch, with the real counter behind the scripts' query."""

from collections.abc import Callable

import pytest
from stack.config.defaults import DEFAULTS
from stack.config.project import Project
from stack.config.service import Request
from stack.failure import Failure
from stack.https import Answer, Question
from stack.parts import counts, watch
from stack.parts.counts import AFTER, BEFORE
from stack.parts.watch import MARK
from stack.rules.verdict import NO_TRAFFIC, Traffic
from stack.runner import Result

from tests.scripts.counting import SOCKET, Watched
from tests.scripts.recording import RecordingRunner

WELL = Traffic(100, 100, 0.0, 3, 0, 0.1, 0.1)
WATCH_SECONDS = float(DEFAULTS["WATCH_SECONDS"])
# The three thirds of a watch, as periods.
SECONDS = int(WATCH_SECONDS)


@pytest.fixture
def host() -> Watched:
    """A front door whose slot green answers the watch's own requests."""
    runner = Watched()

    def answer(question: Question) -> Answer:
        if runner.status:
            runner.count_own(question.headers.get(MARK))
        return Answer(runner.status, "{}")

    runner.door = answer
    return runner


def on_each_request(host: Watched, act: Callable[[], None]) -> None:
    """Let clients send requests whenever the watch sends its own request."""
    door = host.door

    def answer(question: Question) -> Answer:
        act()
        return door(question)

    host.door = answer


def watched(host: Watched, project: Project, earlier: Traffic = WELL) -> watch.Outcome:
    name = watch.begin(host, project, "green", AFTER)
    return watch.watch_slot(host, project, name, earlier)


def test_it_ends_with_the_first_reason(host: Watched, loaded: Project) -> None:
    on_each_request(host, lambda: host.counting.add("green", 500 if host.now > 3 else 200, 30))
    outcome = watched(host, loaded)
    assert outcome.reason.endswith("requests failed, 0% before")
    assert host.now == 4
    assert host.counting.counts.periods == {}, "the counter no longer tells clients apart"


def test_a_release_without_errors_is_not_worse(host: Watched, loaded: Project) -> None:
    on_each_request(host, lambda: host.counting.add("green", 200, 30))
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert outcome.text == (
        "330 requests, 0.0% errors, p95 10 ms;"
        " before the switch: 100 requests, 0.0% errors, p95 100 ms"
    )
    assert host.counting.counts.periods == {}


def test_latency_is_judged_at_the_end_when_the_first_slow_answers_weigh_little(
    host: Watched, loaded: Project
) -> None:
    def answer_slowly_at_first() -> None:
        host.counting.add("green", 200, 100, seconds=9 if host.now < 1 else 0.01)

    on_each_request(host, answer_slowly_at_first)
    assert watched(host, loaded).reason == ""
    assert host.now == WATCH_SECONDS
    on_each_request(host, lambda: host.counting.add("green", 200, 200, seconds=9))
    reason = watched(host, loaded).reason
    assert reason.startswith("p95 is ")
    assert reason.endswith(" ms or more in each third of the watch, 100 ms before")


def test_a_host_that_stalls_during_a_part_of_the_watch_does_not_condemn_the_release(
    host: Watched, loaded: Project
) -> None:
    def stall() -> None:
        seconds = 9 if SECONDS / 3 < host.now < 2 * SECONDS / 3 else 0.01
        host.counting.add("green", 200, 100, seconds=seconds)

    on_each_request(host, stall)
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert "p95 9" in outcome.text


def test_a_watch_of_a_moment_does_not_judge_latency(host: Watched, loaded: Project) -> None:
    on_each_request(host, lambda: host.counting.add("green", 200, 100, seconds=9))
    project = Project(loaded.root, {**loaded.values, "WATCH_SECONDS": "4"})
    assert watched(host, project).reason == ""


@pytest.mark.parametrize(("setting", "seconds"), [("", WATCH_SECONDS), ("3", 3), ("0", 0)])
def test_it_watches_for_as_long_as_the_settings_say(
    host: Watched, loaded: Project, setting: str, seconds: float
) -> None:
    on_each_request(host, lambda: host.counting.add("green", 200, 30))
    project = Project(loaded.root, {**loaded.values, "WATCH_SECONDS": setting})
    assert watched(host, project).reason == ""
    assert host.now == seconds


def test_a_dry_run_does_not_wait_and_asks_for_no_period(loaded: Project) -> None:
    runner = RecordingRunner(is_dry=True)
    assert watch.begin(runner, loaded, "green", AFTER) == ""
    assert watch.watch_slot(runner, loaded, "", WELL) == watch.Outcome()
    assert watch.end_former(runner, "") == NO_TRAFFIC
    assert runner.asked == []


def test_the_former_slot_is_counted_until_the_switch(host: Watched, loaded: Project) -> None:
    host.counting.add("blue", 500, 40)
    name = watch.begin(host, loaded, "blue", BEFORE)
    host.counting.add("blue", 200, 30)
    host.counting.add("green", 500, 40)
    former = watch.end_former(host, name)
    assert (former.requests, former.error_share, former.addresses) == (30, 0.0, 3)
    assert watch.end_former(host, name) == NO_TRAFFIC, "it has ended"


def check_blind(failed: Failure) -> None:
    assert failed.observation.startswith("cannot watch: ")
    assert "WATCH_SECONDS=0" in failed.hints[-1]


def test_a_counter_that_nothing_reaches_shows_no_quiet_release(
    host: Watched, loaded: Project
) -> None:
    host.is_counted = False
    with pytest.raises(Failure, match="does not know the requests") as raised:
        watched(host, loaded)
    check_blind(raised.value)
    assert raised.value.runbook == AFTER


def test_a_counter_that_does_not_answer_shows_no_quiet_release(
    host: Watched, loaded: Project
) -> None:
    name = watch.begin(host, loaded, "green", AFTER)
    host.reply(SOCKET, Result(7, err="curl: (7) Couldn't connect to server\n"))
    with pytest.raises(Failure, match=r"cannot watch: .*Couldn't connect") as raised:
        watch.watch_slot(host, loaded, name, WELL)
    check_blind(raised.value)


def test_a_counter_that_restarts_shows_no_quiet_release(host: Watched, loaded: Project) -> None:
    def restart_once() -> None:
        if 4 < host.now < 6:
            host.counting.restart()

    on_each_request(host, restart_once)
    with pytest.raises(Failure, match="it may have restarted") as raised:
        watched(host, loaded)
    check_blind(raised.value)


def test_a_watch_that_lost_most_of_the_requests_is_blind(host: Watched, loaded: Project) -> None:
    def lose() -> None:
        host.counting.add("green", 200, 30)
        host.counting.lost += 32

    on_each_request(host, lose)
    with pytest.raises(Failure, match=r"cannot watch: 352 of 693 requests were not") as raised:
        watched(host, loaded)
    check_blind(raised.value)


def test_a_few_lost_requests_are_shown(host: Watched, loaded: Project) -> None:
    def lose() -> None:
        host.counting.add("green", 200, 30)
        host.counting.lost += 1

    on_each_request(host, lose)
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert outcome.text.endswith("; 11 of 352 requests were not counted")


def test_a_query_that_fails_once_costs_no_release(host: Watched, loaded: Project) -> None:
    def fail_once() -> None:
        host.counting.add("green", 200, 30)
        if host.now == 3:
            host.reply(SOCKET, Result(124, err="stopped after 30 s"))
        elif host.now == 4:
            host.replies.pop()

    on_each_request(host, fail_once)
    assert watched(host, loaded).reason == ""


def test_a_datagram_that_is_late_is_waited_for(host: Watched, loaded: Project) -> None:
    host.is_counted = False
    name = watch.begin(host, loaded, "green", AFTER)
    sleep = host.sleep

    def arrive(seconds: float) -> None:
        sleep(seconds)
        if host.now > WATCH_SECONDS + 2:
            host.counting.add("green", watch=name)

    host.sleep = arrive  # type: ignore[method-assign]
    assert watch.watch_slot(host, loaded, name, WELL).reason == ""


@pytest.mark.parametrize("status", [500, 503])
def test_where_few_requests_come_those_of_the_watch_decide(
    host: Watched, loaded: Project, status: int
) -> None:
    host.status = status
    outcome = watched(host, loaded)
    assert outcome.reason == "11 of 11 requests of the watch failed, and few others came"


def test_a_front_door_that_gives_no_answer_is_no_success(host: Watched, loaded: Project) -> None:
    host.status = 0
    assert watched(host, loaded).reason.startswith("11 of 11 requests of the watch failed")


def test_too_little_traffic_is_printed_with_what_decided(host: Watched, loaded: Project) -> None:
    on_each_request(host, lambda: host.counting.add("green", 200, 30, clients=2))
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert outcome.text == (
        "330 requests, 0.0% errors, p95 10 ms;"
        " too little traffic to judge: 330 requests from 2 addresses;"
        " 11 of 11 requests of the watch succeeded"
    )
    assert outcome.describe_end("green", 21.04) == "deployed in 21.0 s; back: ./scripts/rollback.sh"


@pytest.mark.parametrize(("clients", "named"), [(1, "1 address"), (2, "2 addresses")])
def test_errors_that_no_rule_judges_stand_in_the_last_lines(
    host: Watched, loaded: Project, clients: int, named: str
) -> None:
    """As behind another proxy, where every client has the same address."""
    on_each_request(host, lambda: host.counting.add("green", 500, 30, clients=clients))
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert outcome.text.startswith("330 requests, 100.0% errors, ")
    assert outcome.describe_end("green", 21).splitlines() == [
        f"deployed, NOT judged: 100% of 330 answers were errors, all to {named}",
        "  its errors  ./scripts/logs.sh api-green",
        "  back        ./scripts/rollback.sh",
    ]


def test_errors_that_the_former_release_had_too_are_not_named(
    host: Watched, loaded: Project
) -> None:
    on_each_request(host, lambda: host.counting.add("green", 500, 30, clients=1))
    assert watched(host, loaded, Traffic(184, 1, 1.0, 1, 1, 0.1, 0.1)).unjudged == ""


ROUTES = (Request("/readyz"), Request("/v1/items", status=401, headers={"X-Own": "1"}))


def test_the_watch_sends_the_requests_of_the_smoke_test_too(host: Watched, loaded: Project) -> None:
    asked: list[tuple[str, str | None]] = []
    door = host.door

    def answer(question: Question) -> Answer:
        asked.append((question.path, question.headers.get("X-Own")))
        return door(question)

    host.door = answer
    name = watch.begin(host, loaded, "green", AFTER)
    outcome = watch.watch_slot(host, loaded, name, WELL, ROUTES)
    assert outcome.reason == ""
    assert outcome.text.endswith("33 of 33 requests of the watch succeeded")
    assert asked[:3] == [("/version", None), ("/readyz", None), ("/v1/items", "1")]


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ({"/v1/items"}, "11 of 11 requests of the watch for /v1/items failed, and few others came"),
        (
            {"/readyz", "/v1/items"},
            "22 of 22 requests of the watch for /readyz, /v1/items failed, and few others came",
        ),
    ],
)
def test_one_path_that_fails_condemns_the_release(
    host: Watched, loaded: Project, failing: set[str], reason: str, *, is_counted: bool
) -> None:
    door = host.door

    def answer(question: Question) -> Answer:
        shown = door(question)
        return Answer(500, "{}") if question.path in failing else shown

    host.door = answer
    name = watch.begin(host, loaded, "green", AFTER) if is_counted else ""
    assert watch.watch_slot(host, loaded, name, WELL, ROUTES).reason == reason


def test_an_error_that_the_smoke_test_expects_is_a_success(host: Watched, loaded: Project) -> None:
    host.status = 503
    routes = [Request("/version", status=503)]
    outcome = watch.watch_slot(host, loaded, "", WELL, routes)
    assert "11 of 22 requests of the watch succeeded" in outcome.text


def test_one_client_s_errors_take_no_release_back(host: Watched, loaded: Project) -> None:
    def abuse() -> None:
        host.counting.add("green", 500, 30, clients=1)
        host.counting.add("green", 200, 10)

    on_each_request(host, abuse)
    outcome = watched(host, loaded)
    assert outcome.reason == ""
    assert "errors of fewer than 3 addresses" in outcome.text


def test_before_the_switch_a_counter_that_sees_no_request_is_refused(
    host: Watched, loaded: Project
) -> None:
    watch.check_sight(host, loaded, "blue")
    assert host.counting.counts.periods == {}
    host.is_counted = False
    with pytest.raises(Failure, match="does not know the requests") as raised:
        watch.check_sight(host, loaded, "blue")
    assert raised.value.runbook == BEFORE
    host.status = 0
    watch.check_sight(host, loaded, "blue")  # no answer: the watch itself decides


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"period": {"name": "x"}}', "<html>"])
def test_a_counter_of_another_version_is_no_quiet_release(
    host: Watched, loaded: Project, answer: str
) -> None:
    host.reply(SOCKET, Result(0, answer))
    with pytest.raises(Failure, match="in the form of another version") as raised:
        watch.begin(host, loaded, "green", AFTER)
    check_blind(raised.value)


def test_before_any_effect_a_counter_that_does_not_answer_is_refused(host: Watched) -> None:
    counts.check(host)
    host.reply(SOCKET, Result(7, err="curl: (7) Couldn't connect to server\n"))
    with pytest.raises(Failure, match="Couldn't connect") as raised:
        counts.check(host)
    check_blind(raised.value)
