"""Tests the watch after a switch: a slot's traffic in nginx' log, and when a release is worse."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack.commands.command import Command
from stack.config.defaults import DEFAULTS
from stack.config.project import Project
from stack.parts import watch
from stack.rules.verdict import NO_TRAFFIC, Traffic, judge, traffic_of
from stack.runner import Result

from tests.scripts.recording import RecordingRunner


def traffic(requests: int, error_share: float, p95_seconds: float) -> Traffic:
    """Return traffic whose latency is the same all the time."""
    return Traffic(requests, error_share, p95_seconds, p95_seconds)


WELL = traffic(100, 0.0, 0.1)


def line(slot: str, status: int = 200, seconds: float = 0.01) -> str:
    return json.dumps({"slot": slot, "status": status, "seconds": seconds}) + "\n"


def test_only_the_lines_of_the_slot_count() -> None:
    log = line("green", seconds=0.2) * 3 + line("blue", 500) * 5
    assert traffic_of(log, "green") == traffic(3, 0.0, 0.2)
    assert traffic_of(log, "blue") == traffic(5, 1.0, 0.01)


def test_an_error_of_nginx_itself_counts_for_the_slot_that_is_watched() -> None:
    assert traffic_of(line("green") + line("", 503), "green") == traffic(2, 0.5, 0.01)


def test_what_nginx_refuses_by_itself_is_not_the_slot_s() -> None:
    assert traffic_of(line("", 429) + line("", 404) + line("", 301), "green") == NO_TRAFFIC


def test_a_client_s_mistake_is_no_error() -> None:
    assert traffic_of(line("green", 401) + line("green", 499), "green").error_share == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026/01/01 [error] 7#7: upstream\n",
        "[1]\n",
        '"text"\n',
        '{"status":"x"}\n',
        '{"cut of\n',
        "null\n",
    ],
)
def test_lines_of_another_form_are_passed_over(text: str) -> None:
    assert traffic_of(text + line("green"), "green").requests == 1


def test_the_95th_percentile_leaves_out_the_slowest_twentieth() -> None:
    log = line("green", seconds=0.1) * 95 + line("green", seconds=9) * 5
    assert traffic_of(log, "green").p95_seconds == 9
    assert traffic_of(log + line("green", seconds=0.1) * 5, "green").p95_seconds == 0.1


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (WELL, traffic(19, 1.0, 9.0), ""),
        (WELL, traffic(20, 1.0, 0.1), "100% of 20 requests failed, 0% before"),
        (WELL, traffic(100, 0.05, 0.1), ""),
        (WELL, traffic(100, 0.06, 0.1), "6% of 100 requests failed, 0% before"),
        (traffic(100, 0.5, 0.1), traffic(100, 0.5, 0.1), ""),
        (NO_TRAFFIC, traffic(100, 0.06, 0.1), "6% of 100 requests failed, 0% before"),
        (WELL, traffic(100, 0.0, 0.59), ""),
        (
            WELL,
            traffic(100, 0.0, 0.61),
            "p95 is 610 ms or more in each third of the watch, 100 ms before",
        ),
        (traffic(100, 0.0, 1.0), traffic(100, 0.0, 2.9), ""),
        (
            traffic(100, 0.0, 1.0),
            traffic(100, 0.0, 3.1),
            "p95 is 3100 ms or more in each third of the watch, 1000 ms before",
        ),
        (traffic(99, 0.0, 0.1), traffic(100, 0.0, 9.0), ""),
        (WELL, traffic(99, 0.0, 9.0), ""),
    ],
)
def test_a_release_is_worse_by_errors_or_by_latency(
    before: Traffic, now: Traffic, reason: str
) -> None:
    assert judge(before, now) == reason


some_traffic = st.builds(traffic, st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 60))


@given(some_traffic)
def test_what_is_as_it_was_is_never_worse(same: Traffic) -> None:
    assert judge(same, same) == ""


@given(some_traffic, some_traffic)
def test_fewer_errors_and_quicker_answers_are_never_worse(before: Traffic, now: Traffic) -> None:
    better = traffic(
        now.requests,
        min(before.error_share, now.error_share),
        min(before.p95_seconds, now.p95_seconds),
    )
    assert judge(before, better) == ""


def test_it_ends_with_the_first_reason(runner: RecordingRunner, loaded: Project) -> None:
    runner.reply("logs", lambda: Result(0, line("green", 500 if runner.now > 3 else 200) * 30))
    reason, now = watch.watch_slot(runner, loaded, "green", WELL)
    assert reason == "100% of 30 requests failed, 0% before"
    assert now.error_share == 1
    assert runner.now == 4


def test_latency_is_judged_at_the_end_when_the_first_slow_answers_weigh_little(
    runner: RecordingRunner, loaded: Project
) -> None:
    slow, quick = line("green", seconds=9) * 100, line("green") * 4000
    runner.reply("logs", lambda: Result(0, slow + (quick if runner.now > 3 else "")))
    assert watch.watch_slot(runner, loaded, "green", WELL)[0] == ""
    assert runner.now == float(DEFAULTS["WATCH_SECONDS"])
    runner.reply("logs", Result(0, slow))
    assert (
        watch.watch_slot(runner, loaded, "green", WELL)[0]
        == "p95 is 9000 ms or more in each third of the watch, 100 ms before"
    )


def test_a_host_that_stalls_during_a_part_of_the_watch_does_not_condemn_the_release(
    runner: RecordingRunner, loaded: Project
) -> None:
    stalled, quick = line("green", seconds=9), line("green") * 70
    runner.reply("logs", Result(0, quick + stalled * 70 + quick))
    reason, now = watch.watch_slot(runner, loaded, "green", WELL)
    assert now.p95_seconds == 9
    assert reason == ""


def test_a_watch_of_a_moment_does_not_judge_latency(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("logs", Result(0, line("green", seconds=9) * 300))
    project = Project(loaded.root, {**loaded.values, "WATCH_SECONDS": "4"})
    assert watch.watch_slot(runner, project, "green", WELL)[0] == ""


@pytest.mark.parametrize(
    ("setting", "seconds"), [("", float(DEFAULTS["WATCH_SECONDS"])), ("3", 3), ("0", 0)]
)
def test_it_watches_for_as_long_as_the_settings_say(
    runner: RecordingRunner, loaded: Project, setting: str, seconds: float
) -> None:
    runner.reply("logs", Result(0, line("green") * 30))
    project = Project(loaded.root, {**loaded.values, "WATCH_SECONDS": setting})
    assert watch.watch_slot(runner, project, "green", WELL)[0] == ""
    assert runner.now == seconds


def test_a_dry_run_does_not_wait(loaded: Project) -> None:
    assert watch.watch_slot(RecordingRunner(is_dry=True), loaded, "green", WELL) == ("", NO_TRAFFIC)


def test_before_is_the_last_half_minute_of_nginx_log(runner: RecordingRunner) -> None:
    asked: list[list[str]] = []
    read = runner.read

    def remember(command: Command) -> Result:
        asked.append(list(command.argv))
        return read(command)

    runner.read = remember  # type: ignore[method-assign]
    runner.reply("logs", Result(0, line("blue")))
    earliest = datetime.now(UTC)
    assert watch.recent_traffic(runner, "blue").requests == 1
    latest = datetime.now(UTC)
    since = datetime.fromisoformat(asked[0][asked[0].index("--since") + 1])
    assert earliest <= since + timedelta(seconds=30) <= latest
    assert asked[0][-1] == "nginx"


def test_nginx_writes_the_fields_that_are_read() -> None:
    text = (Path(__file__).parents[3] / "nginx/conf.d/10-log.conf").read_text(encoding="utf-8")
    for field in (
        '"status":$status',
        '"seconds":$request_time',
        '"slot":"$upstream_http_x_slipway_slot"',
    ):
        assert field in text
