"""For a key that a command does not apply, it prints the command that does, and its cost."""

import json
from dataclasses import replace

import pytest
from stack.config.project import Project, load
from stack.https import Answer, Question
from stack.parts import applied, inventory, observation
from stack.parts.applied import SERVICES
from stack.runner import Result
from stack.stories import check_config, plan, rollback

from tests.scripts.imitation import Host, deploy_on, furnish, set_values
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_containers

ESTIMATE = "(an estimate: not measured on this host yet)"
LINE = (
    f"not applied: POSTGRES_MEMORY: ./scripts/up.sh --apply postgres, about 4 s of 503 {ESTIMATE}"
)


def keep(project: Project, *services: str, runner: RecordingRunner | None = None) -> None:
    """Record the values of `.env` as those of these containers."""
    quiet = runner or RecordingRunner()
    quiet.reply("docker compose config", Result(0))
    applied.keep(quiet, project, services or SERVICES)


@pytest.fixture
def project(loaded: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    made = furnish(loaded.root)
    keep(made)
    return made


def edit(project: Project) -> Project:
    set_values(project.root, POSTGRES_MEMORY="400m", LOG_LEVEL="DEBUG")
    return load(project.root)


def test_a_deploy_names_what_it_does_not_apply_and_applies_the_service_s_keys(
    project: Project,
) -> None:
    edit(project)
    host = Host()
    plan.run(host, load(project.root))
    assert "setting        LOG_LEVEL changed" in host.said
    assert LINE in host.said
    deploy_on(host, project)
    assert host.said.count(LINE) == 2
    host.said.clear()
    plan.run(host, load(project.root))
    assert "setting        none changed" in host.said
    assert LINE in host.said, "it still waits"


def test_what_was_kept_waits_no_longer_and_is_written_once(project: Project) -> None:
    edited, runner = edit(project), RecordingRunner()
    keep(edited, "postgres", runner=runner)
    assert applied.waiting(runner, edited) == {}
    assert len(runner.written) == 1
    keep(edited, "postgres", runner=runner)
    assert len(runner.written) == 1, "the same values are not written again"


def test_a_service_that_was_not_created_keeps_waiting(project: Project) -> None:
    set_values(project.root, POSTGRES_MEMORY="400m", POSTGRES_IMAGE="g:2", REDIS_CPUS="1.0")
    edited, runner = load(project.root), Host()
    assert applied.waiting(runner, edited) == {
        "postgres": ["POSTGRES_MEMORY", "POSTGRES_IMAGE"],
        "redis": ["REDIS_CPUS"],
        "backup": ["POSTGRES_IMAGE"],
    }
    keep(edited, "postgres")
    assert applied.waiting(runner, edited) == {
        "redis": ["REDIS_CPUS"],
        "backup": ["POSTGRES_IMAGE"],
    }


def test_a_default_that_is_written_out_is_no_change(project: Project) -> None:
    same = replace(
        project, values={**project.values, "POSTGRES_MEMORY": "256m", "LOG_LEVEL": "INFO"}
    )
    assert applied.waiting(Host(), same) == {}
    assert applied.waiting_for_deploy(same, "blue") == []


def test_the_file_for_a_public_host_changes_the_ports(project: Project) -> None:
    set_values(project.root, COMPOSE_FILE="compose.yaml:compose.prod.yaml")
    public = load(project.root)
    assert applied.waiting(Host(), public) == {
        "nginx": ["HTTP_BIND", "HTTPS_BIND", "HTTP_PORT", "HTTPS_PORT"]
    }
    assert applied.front_door(public).url == project.url
    keep(public, "nginx")
    assert applied.front_door(public).url == public.url == "https://localhost"


@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_a_port_that_nginx_does_not_have_yet_stops_no_command(
    project: Project, command: str
) -> None:
    set_values(project.root, HTTPS_PORT="9443")
    host = Host()
    asked = []

    def answer(question: Question) -> Answer:
        asked.append(question.port)
        return host.answer(question)

    host.door = answer
    if command == "deploy":
        deploy_on(host, project)
    else:
        rollback.run(host, project.root, "", 0)
    assert host.live == "green"
    assert set(asked) == {project.https_port}
    assert host.said[-1].endswith(f"answering at {project.url}")


def test_check_config_names_both_commands(project: Project) -> None:
    host = Host()
    check_config.run(host, edit(project))
    assert "not applied: LOG_LEVEL: ./scripts/deploy.sh" in host.said
    assert LINE in host.said


def defined(command: str) -> Result:
    services = {name: {"image": f"{name}:1", "command": command} for name in SERVICES}
    return Result(0, json.dumps({"services": services}))


@pytest.mark.parametrize("change", ["compose", "image", "file"])
def test_a_definition_that_changed_without_a_key_is_named(project: Project, change: str) -> None:
    runner = RecordingRunner()
    runner.reply("docker compose config", defined("run"))
    runner.reply("docker image inspect", Result(0, "sha256:1\n"))
    applied.keep(runner, project, SERVICES)
    assert applied.waiting(runner, project) == {}
    every = {name: [applied.DEFINITION] for name in SERVICES}
    match change:
        case "compose":
            runner.reply("docker compose config", defined("other"))
            assert applied.waiting(runner, project) == every
        case "image":
            runner.reply("docker image inspect --format '{{.Id}}' redis:1", Result(0, "sha256:2\n"))
            assert applied.waiting(runner, project) == {"redis": every["redis"]}
        case _:
            (project.root / "redis/redis.conf").write_text("maxmemory 1mb\n", encoding="utf-8")
            assert applied.waiting(runner, project) == {"redis": every["redis"]}


def nginx_with(port: str, cpus: int) -> Result:
    limits = {
        "Memory": 160 * 1024**2,
        "NanoCpus": cpus,
        "PortBindings": {
            "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
            "8443/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}],
        },
    }
    facts = {"Image": "sha256:1", "Config": {"Env": []}, "HostConfig": limits}
    return Result(0, json.dumps(facts))


def test_a_state_of_an_earlier_version_is_read_from_the_containers(project: Project) -> None:
    (project.state / "applied.json").unlink()
    host = Host()
    have_containers(host, project.root, "nginx", "postgres", "api-blue")
    host.reply("docker inspect", Result(1))
    host.reply("slipway-nginx-1", nginx_with("9443", 500_000_000))
    applied.follow_containers(host, project, inventory.look(host))
    assert applied.waiting(host, project) == {"nginx": ["HTTPS_PORT", "NGINX_CPUS"]}
    assert applied.front_door(project).https_port == 9443
    assert list(applied.read(project)) == ["nginx"], "nothing is guessed of the others"


def test_a_container_that_a_person_replaced_counts_more_than_the_file(project: Project) -> None:
    set_values(project.root, NGINX_CPUS="0.5")
    edited, host = load(project.root), Host()
    have_containers(host, project.root, "nginx")
    host.reply("slipway-nginx-1", nginx_with("8443", 500_000_000))
    assert applied.waiting(host, edited) == {"nginx": ["NGINX_CPUS"]}
    applied.follow_containers(host, edited, inventory.look(host))
    assert applied.waiting(host, edited) == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"nginx": {"unknown": 1}}'])
def test_a_file_that_cannot_be_read_is_as_good_as_none(project: Project, text: str) -> None:
    (project.state / "applied.json").write_text(text, encoding="utf-8")
    assert applied.waiting(Host(), edit(project)) == {}
    assert applied.front_door(project).url == project.url


def test_a_replacement_of_nginx_that_was_killed_before_its_record_is_asked_where_it_listens(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = RecordingRunner()
    applied.keep(runner, project, ["nginx"])
    monkeypatch.setenv("HTTPS_PORT", "9443")
    edited = load(project.root)

    def answer(question: Question) -> Answer:
        return Answer(200) if question.port == 9443 else Answer(0, error="connection refused")

    runner.door = answer
    assert applied.front_door(edited).https_port == project.https_port != 9443
    assert observation.ask(runner, edited, "/livez").status == 200
    runner.door = lambda _: Answer(0, error="connection refused")
    assert observation.ask(runner, edited, "/livez").error == "connection refused"
