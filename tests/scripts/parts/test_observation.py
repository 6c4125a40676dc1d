"""The scripts read the live slot from the link, and refuse to guess if the link is unreadable."""

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Result

from tests.scripts.machine import container
from tests.scripts.recording import RecordingRunner


@pytest.fixture
def without_nginx(runner: RecordingRunner) -> RecordingRunner:
    """A stack in which nginx does not run, but other containers may run."""
    runner.reply("docker compose exec", Result(1, err='service "nginx" is not running'))
    runner.reply("docker volume inspect", Result(0))
    runner.reply("docker run", Result(0, "green.sock\n"))
    runner.reply("docker compose ps", Result(0, ""))
    return runner


def test_the_live_link_is_read_from_the_volume_where_nginx_does_not_run(
    without_nginx: RecordingRunner, loaded: Project
) -> None:
    assert observation.live_link(without_nginx, loaded) == "green"
    assert observation.live_slot(without_nginx, loaded) == "green"
    (question, *_) = [
        command for command in without_nginx.asked if command.startswith("docker run")
    ]
    assert "--volume slipway_slots:/run/slots:ro" in question
    assert "--network none" in question


@pytest.mark.parametrize(
    ("part", "reply"), [("docker volume", Result(1)), ("docker run", Result(0, "none.sock\n"))]
)
def test_where_there_is_no_link_the_slot_is_the_one_that_runs_or_else_blue(
    without_nginx: RecordingRunner, loaded: Project, part: str, reply: Result
) -> None:
    without_nginx.reply(part, reply)
    assert observation.live_link(without_nginx, loaded) == ""
    assert observation.live_slot(without_nginx, loaded) == "blue"
    states = {"api-green": "running", "worker-blue": "exited", "worker-green": "running"}
    without_nginx.reply(
        "docker compose ps", Result(0, "".join(container(*one) for one in states.items()))
    )
    assert observation.live_slot(without_nginx, loaded) == "green", (
        "worker-green runs, so green is live"
    )


@pytest.mark.parametrize(
    "link", ["purple.sock\n", "", "/tmp/blue.sock\n", "blue.sock\ngreen.sock\n"]
)
@pytest.mark.parametrize("part", ["docker compose exec", "docker run"])
def test_a_link_that_names_no_slot_is_refused_and_not_guessed(
    without_nginx: RecordingRunner, loaded: Project, part: str, link: str
) -> None:
    without_nginx.reply(part, Result(0, link))
    with pytest.raises(Failure, match="the live link cannot be read") as raised:
        observation.live_slot(without_nginx, loaded)
    assert raised.value.runbook == "lost-live-link"


def test_a_volume_that_cannot_be_asked_is_refused_and_not_guessed(
    without_nginx: RecordingRunner, loaded: Project
) -> None:
    without_nginx.reply("docker run", Result(125, "none.sock\n", "cannot connect to the engine\n"))
    with pytest.raises(Failure, match="the live link cannot be read: cannot connect to the engine"):
        observation.live_slot(without_nginx, loaded)


def test_a_query_is_tried_again_while_every_connection_is_taken(runner: RecordingRunner) -> None:
    refusal = Result(2, err=f"psql: error: FATAL:  {observation.ALL_TAKEN}")
    answers = [refusal, refusal, Result(0, "1\n")]
    runner.reply("psql", lambda: answers.pop(0))
    assert observation.sql(runner, "select 1").out == "1\n"


def test_a_query_that_stays_refused_is_refused_in_the_end(runner: RecordingRunner) -> None:
    runner.reply("psql", Result(2, err=f"psql: error: FATAL:  {observation.ALL_TAKEN}"))
    assert observation.sql(runner, "select 1").code == 2
    assert len(runner.asked) == 1 + observation.CONNECT_RETRIES


def test_another_refusal_is_not_tried_again(runner: RecordingRunner) -> None:
    runner.reply("psql", Result(2, err="psql: error: the database system is starting up"))
    assert observation.sql(runner, "select 1").code == 2
    assert len(runner.asked) == 1
