"""The scripts read the live slot from the link, and refuse to guess if the link is unreadable."""

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.https import Answer, Question
from stack.parts import ledger, observation
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


def test_where_there_is_no_link_the_ledger_names_the_slot_while_both_workers_run(
    without_nginx: RecordingRunner, loaded: Project
) -> None:
    """The worker of the former slot finishes its jobs for 30 s after a deploy or a rollback."""
    without_nginx.reply("docker run", Result(0, "none.sock\n"))
    names = ("api-blue", "api-green", "worker-blue", "worker-green")
    both = "".join(container(name) for name in names)
    without_nginx.reply("docker compose ps", Result(0, both))
    ledger.record(without_nginx, loaded, "up", slot="blue", to="r-1", result="done")
    ledger.record(without_nginx, loaded, "deploy", slot="green", to="r-2", result="done")
    ledger.record(without_nginx, loaded, "deploy", slot="blue", to="r-3", result="rolled back")
    ledger.record(without_nginx, loaded, "retire", slot="blue", to="r-2", result="done")
    assert observation.live_slot(without_nginx, loaded) == "green"
    without_nginx.reply("docker compose ps", Result(0, container("worker-blue")))
    assert observation.live_slot(without_nginx, loaded) == "blue", "the API of green does not run"


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


@pytest.mark.parametrize(
    "words",
    [
        "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
        "failed to connect to the docker API at unix:///x",
        "permission denied while trying to connect to the Docker daemon socket at unix:///x",
    ],
)
def test_an_engine_that_does_not_answer_is_not_an_image_that_is_not_there(
    runner: RecordingRunner, loaded: Project, words: str
) -> None:
    runner.reply("docker image inspect", Result(1, err="Error: No such image: x"))
    assert observation.slot_release(runner, loaded, "blue") == ""
    runner.reply("docker image inspect", Result(1, err=words))
    with pytest.raises(Failure, match=r"docker image inspect .* exited with 1"):
        observation.slot_release(runner, loaded, "blue")


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


def test_without_a_certificate_the_last_line_still_names_the_live_release(
    runner: RecordingRunner, loaded: Project
) -> None:
    """A second checkout has no certificate of the stack that runs on this host."""
    headers = {"X-Slipway-Release": "r-1", "X-Slipway-Slot": "blue"}

    def door(question: Question) -> Answer:
        if question.trust is None:
            return Answer(200, headers=headers)
        return Answer(0, error="certificate verify failed: self-signed certificate")

    runner.door = door
    runner.reply("docker compose ps", Result(0, container("nginx")))
    loaded.certificate.unlink(missing_ok=True)
    line = observation.what_serves(runner, loaded)
    assert line.startswith("live: release r-1 in slot blue, answering at https://")
    assert line.endswith(f" (not verified: {loaded.certificate} is missing)")
    loaded.certificate.parent.mkdir(parents=True, exist_ok=True)
    loaded.certificate.write_text("another certificate", encoding="utf-8")
    assert "nothing answers" in observation.what_serves(runner, loaded)
