"""The preflight reports all faults together, with values, and before any effect."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stack.config.keys import KEYS
from stack.config.project import Project, load
from stack.failure import Failure
from stack.https import Answer
from stack.parts import preflight
from stack.runner import Result

from tests.scripts.imitation import Host, furnish

MEMINFO = "MemTotal:  1000 kB\nMemAvailable:  600 kB\nSwapFree:  24 kB\nHugePages_Total:  3\n"


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Require no free disk or memory, because the test machine may have little of both."""
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    furnish(checkout)
    return load(checkout)


def with_values(project: Project, **values: str) -> Project:
    return Project(project.root, {**project.values, **values})


def failure(host: Host, project: Project) -> Failure:
    with pytest.raises(Failure) as raised:
        preflight.check(host, project)
    assert (raised.value.code, host.ran, host.written) == (1, [], [])
    return raised.value


def test_a_host_that_is_well_passes_without_an_effect(host: Host, project: Project) -> None:
    assert preflight.check(host, project) == []
    assert (host.ran, host.written) == ([], [])


def test_an_emptied_console_password_is_as_good_as_a_strong_one(
    host: Host, project: Project
) -> None:
    (project.secrets / "ops_password").write_text("\n", encoding="utf-8")
    assert preflight.check(host, project) == []


def test_a_certificate_of_another_name_is_refused_before_nginx_loads_it(
    host: Host, project: Project
) -> None:
    project.certificate.parent.mkdir()
    project.certificate.parent.chmod(0o755)
    project.certificate.touch(0o644)
    host.reply("x509 -noout", Result(0, "Hostname localhost does NOT match certificate\n"))
    assert "is not for localhost" in failure(host, project).observation


def test_everything_that_is_wrong_is_named_at_once(host: Host, project: Project) -> None:
    (project.secrets / "token_key").unlink()
    (project.secrets / "redis_password").write_text("\n", encoding="utf-8")
    (project.secrets / "ops_password").unlink()
    (project.secrets / "token_key_previous").unlink()
    host.reply(
        "docker compose config",
        Result(1, err="required variable POSTGRES_IMAGE is missing a value\n"),
    )
    host.reply("max_connections", Result(0, "20|3\n"))
    host.door = lambda _: Answer(
        200, expires=f"{datetime.now(UTC) + timedelta(days=1):%b %d %H:%M:%S %Y} GMT"
    )
    huge = str(10**15)
    failed = failure(
        host, with_values(project, FREE_DISK_FLOOR_BYTES=huge, FREE_MEMORY_FLOOR_BYTES=huge)
    )
    for part in (
        "token_key is missing",
        "redis_password is empty",
        "ops_password is missing",
        "token_key_previous is missing",
        "compose: required variable POSTGRES_IMAGE is missing a value",
        "GB are free at /",
        "MB of memory are free",
        "all processes may open 42 connections, and Postgres takes 17 (20 less 3 reserved)",
        "the certificate ends in 0 days",
    ):
        assert part in failed.observation


def test_what_the_live_release_refuses_is_told_with_its_fix(host: Host, project: Project) -> None:
    host.reply(
        "api-blue python -m api.check_config",
        Result(78, "critical TOKEN_KEY: short; put another\n"),
    )
    failed = failure(host, project)
    assert (failed.observation, failed.evidence) == (
        "TOKEN_KEY: short",
        "critical TOKEN_KEY: short; put another",
    )
    assert failed.runbook == "boot-refused-by-the-configuration"


def test_what_the_live_release_warns_of_stops_nothing(host: Host, project: Project) -> None:
    host.reply("api.check_config", Result(0, "warning DOCS_ENABLED: on; empty it in .env\n"))
    assert preflight.check(host, project) == ["DOCS_ENABLED: on"]


@pytest.mark.parametrize(
    ("key", "named"),
    [("FREE_DISK_FLOOR_BYTES", "GB are free"), ("FREE_MEMORY_FLOOR_BYTES", "MB of memory")],
)
def test_below_a_floor_it_refuses_and_says_what_to_do(
    host: Host, project: Project, key: str, named: str
) -> None:
    failed = failure(host, with_values(project, **{key: str(10**15)}))
    assert named in failed.observation
    assert failed.runbook == "disk-or-memory-below-the-floor"


def test_the_disk_s_fault_names_what_to_delete(host: Host, project: Project) -> None:
    failed = failure(host, with_values(project, FREE_DISK_FLOOR_BYTES=str(10**15)))
    assert (
        "1000000.0 GB are needed: delete old releases (docker image ls slipway/app)"
        in failed.observation
    )


@pytest.mark.parametrize("key", ["FREE_DISK_FLOOR_BYTES", "FREE_MEMORY_FLOOR_BYTES"])
def test_an_empty_floor_is_the_default_and_not_none(
    host: Host, project: Project, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = replace(KEYS[key], default=str(10**15))
    monkeypatch.setattr("stack.config.keys.KEYS", {**KEYS, key: default})
    failed = failure(host, with_values(project, **{key: ""}))
    assert failed.runbook == "disk-or-memory-below-the-floor"


@pytest.mark.parametrize("text", [MEMINFO, MEMINFO.replace("SwapFree:  24 kB\n", "")])
def test_memory_is_what_is_available_and_free_swap(text: str) -> None:
    assert preflight.available_memory_bytes(text) == (624 if "Swap" in text else 600) * 1024


@pytest.mark.parametrize(("most", "is_enough"), [(44, False), (45, True)])
def test_the_budget_is_held_against_what_postgres_takes(
    host: Host, project: Project, most: int, *, is_enough: bool
) -> None:
    host.reply("max_connections", Result(0, f"{most}|3\n"))
    if is_enough:
        preflight.check(host, project)
    else:
        assert "lower DATABASE_POOL_SIZE" in failure(host, project).observation


def test_a_postgres_that_does_not_answer_is_a_fault(host: Host, project: Project) -> None:
    host.reply("max_connections", Result(1, err="connection refused\n"))
    assert "Postgres does not answer: connection refused" in failure(host, project).observation


def test_a_front_door_without_a_certificate_is_a_warning(host: Host, project: Project) -> None:
    host.door = lambda _: Answer(0, error="connection refused")
    assert preflight.check(host, project) == [
        "the front door shows no certificate: connection refused"
    ]


def test_a_deploy_warns_where_nothing_is_kept_to_go_back_to(host: Host, project: Project) -> None:
    del host.tags["older"], host.tags["green"]
    assert preflight.check(host, project) == ["warning: there is no release to go back to from old"]


def test_nginx_configuration_is_tried_last(host: Host, project: Project) -> None:
    host.reply("docker run", Result(1, err="nginx: [emerg]"))
    assert failure(host, project).runbook == "nginx-refuses-its-configuration"


def test_closed_modes_are_opened_before_nginx_reads_the_files(host: Host, project: Project) -> None:
    file, modes = project.root / "nginx/conf.d/a.conf", list[int]()
    file.chmod(0o600)

    def read() -> Result:
        modes.append(file.stat().st_mode & 0o777)
        return Result(0)

    host.reply("entrypoint.sh", read)
    preflight.check(host, project)
    assert modes == [0o644]


def test_a_service_file_that_cannot_be_read_is_refused_before_any_effect(
    host: Host, project: Project
) -> None:
    (project.root / "service.toml").write_text("[web]\nsmok = []\n", encoding="utf-8")
    assert "service.toml" in failure(host, project).observation
