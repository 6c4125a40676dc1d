"""A key that a command does not apply is named with the command that does."""

from dataclasses import replace

import pytest
from stack.config.project import Project, load
from stack.parts import applied
from stack.stories import check_config, plan, rollback

from tests.scripts.imitation import (
    Host,
    deploy_on,
    failed_deploy,
    failure_of,
    furnish,
    set_values,
)
from tests.scripts.recording import RecordingRunner


@pytest.fixture
def project(loaded: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    made = furnish(loaded.root)
    applied.keep(RecordingRunner(), made)
    return made


def edit(project: Project) -> Project:
    set_values(project.root, POSTGRES_MEMORY="400m", RATE_LIMIT_PER_SECOND="20", LOG_LEVEL="DEBUG")
    return load(project.root)


def test_a_deploy_names_what_it_does_not_apply_and_applies_the_service_s_keys(
    project: Project,
) -> None:
    edit(project)
    host = Host()
    plan.run(host, load(project.root))
    assert "setting        LOG_LEVEL changed" in host.said
    line = "not applied: RATE_LIMIT_PER_SECOND, POSTGRES_MEMORY: ./scripts/up.sh"
    assert line in host.said
    deploy_on(host, project)
    assert host.said.count(line) == 2
    host.said.clear()
    plan.run(host, load(project.root))
    assert "setting        none changed" in host.said
    assert line in host.said, "it still waits"


def test_after_up_nothing_waits(project: Project) -> None:
    edited = edit(project)
    runner = RecordingRunner()
    applied.keep(runner, edited)
    assert applied.waiting_for_up(edited) == []
    assert len(runner.written) == 1
    applied.keep(runner, edited)
    assert len(runner.written) == 1, "the same values are not written again"


def test_a_default_that_is_written_out_is_no_change(project: Project) -> None:
    same = replace(
        project, values={**project.values, "POSTGRES_MEMORY": "256m", "LOG_LEVEL": "INFO"}
    )
    assert applied.waiting_for_up(same) == []
    assert applied.waiting_for_deploy(same, "blue") == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("SLIPWAY_HOST", "api.example.org"), ("HTTPS_PORT", "9443"), ("HTTPS_BIND", "127.0.0.2")],
)
@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_a_front_door_that_nginx_does_not_have_yet_is_refused_before_any_effect(
    project: Project, key: str, value: str, command: str
) -> None:
    set_values(project.root, **{key: value})
    host = Host()
    if command == "deploy":
        failed = failed_deploy(host, project)
    else:
        failed = failure_of(lambda: rollback.run(host, project.root, "", 0))
    assert failed.observation.startswith(f"nginx does not have {key} of .env yet")
    assert failed.hints[0] == "./scripts/up.sh applies the change"
    assert host.changes() == []


def test_check_config_names_both_commands(project: Project) -> None:
    host = Host()
    check_config.run(host, edit(project))
    assert "not applied: LOG_LEVEL: ./scripts/deploy.sh" in host.said
    assert any(line.endswith("POSTGRES_MEMORY: ./scripts/up.sh") for line in host.said)
