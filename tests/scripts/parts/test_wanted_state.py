"""Each command checks the wanted state by the same rules before any change."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import applied, preflight, restorer
from stack.parts.preflight import DEPLOY, EVERYTHING, Needs
from stack.runner import Result
from stack.stories import check_config, deploy, plan, restore, up, upgrade_postgres
from stack.stories.deploy import Options

from tests.scripts.imitation import Host, furnish, set_values
from tests.scripts.machine import Machine
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_volumes

COMMANDS: dict[str, Callable[[RecordingRunner, Project], object]] = {
    "up": lambda host, project: up.run(host, project.root),
    "deploy": lambda host, project: deploy.run(host, project.root, Options()),
    "restore": lambda host, project: restore.replace(
        host, project, restore.Options(is_confirmed=True)
    ),
    "restore --beside": lambda host, project: restore.beside(host, project, restore.Options()),
    "upgrade-postgres": lambda host, project: upgrade_postgres.run(host, project.root, ""),
}


@pytest.fixture
def project(loaded: Project, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    furnish(loaded.root)
    return load(loaded.root)


def old_engine(host: RecordingRunner, _: Project) -> None:
    host.reply("docker version", Result(0, "20.10.24\n"))
    host.reply("dockerd --version", Result(0, "Docker version 26.1.5, build 1\n"))


def used_pools(host: RecordingRunner, _: Project) -> None:
    host.reply("docker network ls", Result(0, "bridge\n"))
    host.reply("docker info --format '{{json .DefaultAddressPools}}'", Result(0, "null\n"))
    host.reply("docker network inspect", Result(0, "172.16.0.0/12\n192.168.0.0/16\n"))


def taken_name(host: RecordingRunner, _: Project) -> None:
    host.reply("docker container list", Result(0, "slipway-redis-1\t\nother-redis-1\tother\n"))


def windows(_: RecordingRunner, project: Project) -> None:
    (project.root / "redis/redis.conf").write_bytes(b"maxmemory 1mb\r\n")


def too_much_memory(_: RecordingRunner, project: Project) -> None:
    set_values(project.root, BACKUP_MEMORY="9000g")


def link_out(_: RecordingRunner, project: Project) -> None:
    project.certificate.parent.mkdir(mode=0o755)
    project.certificate.symlink_to("../../archive/fullchain1.pem")


FAULTS: dict[str, tuple[Callable[[RecordingRunner, Project], None], str]] = {
    "engine": (old_engine, "engine: 20.10.24 runs, which is older than 25.0"),
    "pools": (used_pools, "networks: the engine has addresses for 0 more networks"),
    "name": (taken_name, "containers: slipway-redis-1 has the name of a container of this stack"),
    "line ends": (windows, "redis: "),
    "memory": (too_much_memory, "BACKUP_MEMORY: 9000g is more than the"),
    "link": (link_out, "fullchain.pem: is a link to ../../archive/fullchain1.pem"),
}


def prepared(command: str) -> RecordingRunner:
    """Return a host on which the preflight of the command finds no fault."""
    if command != "up":
        return Host()
    runner = RecordingRunner()
    Machine(runner)
    return runner


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_what_cannot_work_before_any_effect(
    project: Project, command: str, fault: str
) -> None:
    host = prepared(command)
    inject, observed = FAULTS[fault]
    inject(host, project)
    with pytest.raises(Failure) as refused:
        COMMANDS[command](host, load(project.root))
    assert observed in refused.value.observation
    assert "nothing was touched" in refused.value.hints
    assert host.ran == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_commands_that_only_look_name_the_same(project: Project, fault: str) -> None:
    inject, observed = FAULTS[fault]
    host = Host()
    inject(host, project)
    assert not check_config.run(host, load(project.root))
    plan.run(host, load(project.root))
    lines = [line for line in host.said if line.startswith(f"critical {observed}")]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert host.ran == []


def test_a_host_that_is_well_has_no_finding(project: Project) -> None:
    host = Host()
    assert preflight.judge(host, project, EVERYTHING) == []
    assert (host.ran, host.written) == ([], [])


@pytest.mark.parametrize(
    ("image", "key"), [("p:1", "PYTHON_IMAGE"), ("slipway/app-nginx:current", "NGINX_IMAGE")]
)
def test_a_deploy_without_its_bases_names_the_command_that_provides_them(
    project: Project, image: str, key: str
) -> None:
    host = Host()
    host.reply(f"docker image inspect --format '{{{{.Id}}}}' {image}", Result(1))
    (finding,) = preflight.judge(host, project, DEPLOY)
    assert (finding.subject, finding.is_critical) == (key, True)
    assert finding.fix == "./scripts/up.sh provides it"
    (finding,) = preflight.judge(host, project, Needs())
    assert not finding.is_critical


def publishing(ports: dict[str, int], *, is_running: bool = True) -> Result:
    published = [{"URL": "127.0.0.1", "PublishedPort": port} for port in ports.values()]
    state = {"State": "running" if is_running else "exited", "Health": "healthy"}
    return Result(0, json.dumps({"Service": "nginx", **state, "Publishers": published}) + "\n")


@pytest.mark.parametrize("key", ["HTTP_PORT", "HTTPS_PORT"])
@pytest.mark.parametrize("is_running", [True, False])
def test_a_port_in_use_is_found_also_while_nginx_runs(
    project: Project, ports: dict[str, int], key: str, *, is_running: bool
) -> None:
    host = Host()
    host.reply("compose ps", publishing(ports, is_running=is_running))
    assert preflight.judge(host, project, EVERYTHING) == []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        wanted = replace(project, values={**project.values, key: str(port)})
        (finding,) = preflight.judge(host, wanted, EVERYTHING)
        assert (finding.subject, finding.is_critical) == (key, True)
        assert f"port {port} of 127.0.0.1: Address already in use" in finding.fault
        (finding,) = preflight.judge(host, wanted, DEPLOY)
        assert not finding.is_critical, "a deploy starts no nginx"


def test_a_full_disk_refuses_a_second_slot_and_warns_elsewhere(project: Project) -> None:
    values = {**project.values, "FREE_DISK_FLOOR_BYTES": str(10**15)}
    full = replace(project, values=values)
    for needs, is_critical in ((DEPLOY, True), (EVERYTHING, False), (Needs(), False)):
        listed = preflight.judge(Host(), full, needs)
        assert {(each.subject, each.is_critical) for each in listed} == {("disk", is_critical)}


def test_one_port_for_both_protocols_is_refused(project: Project) -> None:
    same = replace(project, values={**project.values, "HTTP_PORT": "8443", "HTTPS_PORT": "8443"})
    (finding,) = preflight.judge(Host(), same, EVERYTHING)
    assert finding.fault == "HTTP_PORT is 8443, too"


def test_an_address_of_ipv6_is_tried_without_its_brackets(project: Project) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = str(other.getsockname()[1])
        values = {"HTTPS_BIND": "[::1]", "HTTPS_PORT": port}
        host = Host(running=set())
        wanted = replace(project, values={**project.values, **values})
        (finding,) = preflight.judge(host, wanted, EVERYTHING)
    assert finding.fault == f"nginx cannot use port {port} of ::1: Address already in use"


def test_a_certificate_of_another_name_stops_those_that_show_it(project: Project) -> None:
    project.certificate.parent.mkdir(mode=0o755)
    project.certificate.touch(0o644)
    host = Host()
    assert preflight.judge(host, project, EVERYTHING) == []
    host.reply("-checkhost", Result(1, "Hostname localhost does NOT match certificate\n"))
    (finding,) = preflight.judge(host, project, DEPLOY)
    assert (finding.subject, finding.is_critical) == ("SLIPWAY_HOST", True)
    (finding,) = preflight.judge(host, project, Needs())
    assert not finding.is_critical


def other_kind(host: RecordingRunner, project: Project) -> None:
    """Name images whose user does not own the volumes."""
    edit_image(host, project)
    host.reply("sh redis /volumes", Result(0, "999\n100 redis\n"))


def other_version(host: RecordingRunner, project: Project) -> None:
    """Name an image of a newer Postgres."""
    edit_image(host, project)
    host.reply("server_version_num", Result(0, "17\n"))
    host.reply("--entrypoint postgres", Result(0, "postgres (PostgreSQL) 18.1\n"))


def edit_image(host: RecordingRunner, project: Project) -> None:
    """Name other images of the servers in `.env`, which are on this host."""
    for service in ("postgres", "redis"):
        applied.note(RecordingRunner(), project, service)
    have_volumes(host)
    host.reply("docker image inspect --format '{{.Id}}' other:", Result(0, "sha256:other\n"))
    host.reply("server_version_num", Result(0, "17\n"))
    host.reply("--entrypoint postgres", Result(0, "postgres (PostgreSQL) 17.6\n"))
    set_values(project.root, POSTGRES_IMAGE="other:pg", REDIS_IMAGE="other:redis")


SERVERS: dict[str, tuple[Callable[[RecordingRunner, Project], None], str]] = {
    "kind": (other_kind, "REDIS_IMAGE: is of another kind: its user redis has the number 999"),
    "version": (other_version, "POSTGRES_IMAGE: is Postgres 18, but the running server is"),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_an_image_that_cannot_read_the_data_is_named_before_anything_is_touched(
    project: Project, fault: str
) -> None:
    inject, observed = SERVERS[fault]
    host = prepared("up")
    inject(host, project)
    before = (project.root / ".env").read_bytes()
    with pytest.raises(Failure) as refused:
        up.run(host, project.root)
    assert observed in refused.value.observation
    assert host.ran == []
    assert (project.root / ".env").read_bytes() == before
    host = Host()
    inject(host, project)
    assert not check_config.run(host, load(project.root))
    plan.run(host, load(project.root))
    assert [line.split(observed)[0] for line in host.said if observed in line] == [
        "critical ",
        "warning ",
    ]
    assert host.ran == []


@pytest.mark.parametrize("command", ["restore", "restore --beside"])
@pytest.mark.parametrize("fault", SERVERS)
def test_a_restore_replaces_no_image_and_names_it_before_it_looks(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str, fault: str
) -> None:
    host = Host()
    inject, observed = SERVERS[fault]
    inject(host, project)

    def stop(*_: object) -> str:
        raise Failure("the first look", hints=[], runbook="restore-rows")

    monkeypatch.setattr(restorer, "tidy", stop)
    with pytest.raises(Failure, match="the first look"):
        COMMANDS[command](host, load(project.root))
    assert any(line.startswith(f"    {observed}") for line in host.said)
    assert host.ran == []


def test_the_images_that_the_servers_have_are_not_asked_and_absent_ones_neither(
    project: Project,
) -> None:
    host = Host()
    edit_image(host, project)
    for image in ("g:1", "r:1"):
        host.reply(f"docker image inspect --format '{{{{.Id}}}}' {image}", Result(0, "sha256:1\n"))
    host.reply("sh redis /volumes", Result(0, "999\n100 redis\n"))
    assert preflight.judge(host, project, EVERYTHING) == []
    assert not any("docker run" in command for command in host.asked)
    host.reply("docker image inspect --format '{{.Id}}' other:", Result(1))
    assert preflight.judge(host, load(project.root), EVERYTHING) == []


def test_up_gives_modes_back_and_says_so(
    project: Project, runner: RecordingRunner, machine: Machine
) -> None:
    (project.root / "redis/redis.conf").chmod(0o600)
    up.run(runner, project.root)
    assert (project.root / "redis/redis.conf").stat().st_mode & 0o004
    assert "opened redis to the containers' users" in "\n".join(runner.said)
