"""`check-config.sh` lets the placed release check the settings, and changes nothing."""

from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.failure import Failure
from stack.https import Answer
from stack.parts import judgement
from stack.runner import Result
from stack.stories import check_config

from tests.scripts.conftest import Typed
from tests.scripts.imitation import Host, furnish
from tests.scripts.recording import RecordingRunner

REFUSED = "critical TOKEN_KEY: short; put another\n"
UNWISE = "warning DOCS_ENABLED: on; empty it\n"


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(checkout: Path) -> Project:
    furnish(checkout)
    return load(checkout)


def test_the_live_slot_judges_without_what_it_needs_to_serve(host: Host, project: Project) -> None:
    host.live = "green"
    host.running |= {"api-green"}
    judge = "docker compose run --rm --no-deps --no-TTY api-green python -m api.check_config"
    host.reply(judge, Result(0, "warning KEY: judged; nothing\n"))
    assert check_config.run(host, project)
    assert (host.ran, host.written) == ([], [])
    assert host.said[:2] == ["warning KEY: judged; nothing", "0 critical, 1 to reconsider"]
    assert host.said[-1].startswith("live: release older in slot green")


def test_what_is_critical_is_said_first(host: Host, project: Project) -> None:
    host.reply("api-blue python -m api.check_config", Result(78, UNWISE + REFUSED))
    assert not check_config.run(host, project)
    assert host.said[:3] == [REFUSED.strip(), UNWISE.strip(), "1 critical, 1 to reconsider"]


def test_warnings_alone_are_no_failure(host: Host, project: Project) -> None:
    host.reply("api.check_config", Result(0, UNWISE))
    assert check_config.run(host, project)


def test_an_overdrawn_connection_budget_is_critical(host: Host, project: Project) -> None:
    conf = project.root / "postgres/postgresql.conf"
    conf.write_text("max_connections = 20\nsuperuser_reserved_connections = 3\n", encoding="utf-8")
    assert not check_config.run(host, project)
    assert host.said[0].startswith(
        "critical DATABASE_POOL_SIZE: all processes may open 42 connections"
    )


def test_files_that_no_container_starts_without_are_named_at_once(
    host: Host, project: Project
) -> None:
    (project.secrets / "token_key").unlink()
    (project.secrets / "redis_password").write_text("\n", encoding="utf-8")
    host.reply(
        "docker compose config",
        Result(1, err="required variable POSTGRES_IMAGE is missing a value\n"),
    )
    host.reply("api.check_config", Result(0, UNWISE))  # never called: the container could not start
    assert not check_config.run(host, project)
    assert [line.split()[1] for line in host.said if line.startswith("critical")] == [
        "REDIS_PASSWORD:",
        "TOKEN_KEY:",
        "compose:",
    ]
    assert UNWISE.strip() not in host.said


def test_without_a_release_it_says_who_makes_one(host: Host, project: Project) -> None:
    host.tags.clear()
    with pytest.raises(Failure, match="no release is in slot blue") as raised:
        check_config.run(host, project)
    assert "./scripts/up.sh builds one" in raised.value.hints[0]


def test_a_release_older_than_the_check_is_a_warning(host: Host, project: Project) -> None:
    host.reply(
        "api.check_config",
        Result(1, err="/opt/venv/bin/python: No module named api.check_config\n"),
    )
    assert check_config.run(host, project)
    assert host.said[0].startswith("warning api-blue: its release is older than this check")


def test_a_container_that_cannot_judge_is_a_failure_with_its_words(
    host: Host, project: Project
) -> None:
    host.reply("api.check_config", Result(125, err="no such network"))
    with pytest.raises(
        Failure, match="api-blue could not check its settings: exit code 125"
    ) as raised:
        check_config.run(host, project)
    assert raised.value.evidence == "no such network"


def test_what_is_refused_is_told_before_the_release_starts(host: Host, project: Project) -> None:
    assert judgement.accept_settings(host, project, "green") == "accepted by the release"
    assert host.changes() == ["run api-green"]
    host.reply("api.check_config", Result(78, REFUSED + UNWISE))
    with pytest.raises(
        Failure, match="the release in slot green refuses TOKEN_KEY; no service"
    ) as raised:
        judgement.accept_settings(host, project, "green")
    assert raised.value.evidence == (REFUSED + UNWISE).strip()
    assert raised.value.runbook == "boot-refused-by-the-configuration"


@pytest.mark.usefixtures("ports")
@pytest.mark.parametrize(
    ("answer", "code"), [(Result(78, REFUSED), 1), (Result(0, UNWISE), 0), (Result(0), 0)]
)
def test_the_exit_code_says_whether_anything_is_critical(
    typed: Typed, runner: RecordingRunner, checkout: Path, answer: Result, code: int
) -> None:
    furnish(checkout)
    for part, reply in (
        (" g:1", Result(1, err="No such image")),  # the base image of Postgres
        ("docker compose config", Result(0)),
        ("readlink", Result(0, "blue.sock\n")),
        ("image.version", Result(0, "r-1\n")),
        ("docker compose ps", Result(0)),
        ("api.check_config", answer),
    ):
        runner.reply(part, reply)
    runner.door = lambda _: Answer(0, error="connection refused")
    assert typed("check-config") == code
