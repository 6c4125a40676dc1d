"""A slot's containers have the limits of their deployment, even if `.env` has changed since."""

import pytest
from stack.config.project import Project, load
from stack.parts import services
from stack.parts.ledger import Deployment

from tests.scripts.imitation import WAIT, Host, deploy_on, fail, failed_deploy, place, set_values


def limits_of(host: Host, service: str) -> list[dict[str, str]]:
    """Return the variables of each command that started a service."""
    pairs = zip(host.ran, host.environments, strict=True)
    return [env for text, env in pairs if " up " in text and text.endswith(service)]


def test_a_deploy_that_goes_back_starts_the_former_worker_with_its_former_limits(
    host: Host, project: Project
) -> None:
    set_values(project.root, WORKER_MEMORY="64m", API_CPUS="1")
    fail(WAIT.format("worker-green"))(host, project)
    failed_deploy(host, project)
    assert host.live == "blue"
    assert limits_of(host, "worker-green") == [{}], "the new deployment has those of .env"
    assert limits_of(host, "worker-blue") == [{"WORKER_MEMORY": "160m", "API_CPUS": "2"}]


def test_a_command_names_no_limit_that_env_has_too(host: Host, project: Project) -> None:
    set_values(project.root, WORKER_MEMORY="512m")
    deploy_on(host, project)
    assert limits_of(host, "api-green") == limits_of(host, "worker-green") == [{}]


def test_an_edit_of_env_does_not_reach_a_slot_that_is_started_again(
    host: Host, project: Project
) -> None:
    place(project, Deployment(2, "old"), "blue", API_MEMORY="512m")
    names = ["api-blue", "worker-blue", "nginx"]
    services.start(host, project, *names, seconds=60, runbook="site-down")
    assert host.environments[-1] == {"API_MEMORY": "512m"}
    services.start(host, load(project.root), "nginx", seconds=60, runbook="site-down")
    assert host.environments[-1] == {}


def test_more_cpus_than_the_host_has_by_now_are_those_of_env(
    host: Host, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine would refuse to create the container on a host that was made smaller."""
    place(project, Deployment(2, "old"), "blue", API_CPUS="2", WORKER_MEMORY="64m")
    set_values(project.root, API_CPUS="1")
    for cores, limits in (
        (1, {"WORKER_MEMORY": "64m"}),
        (2, {"API_CPUS": "2", "WORKER_MEMORY": "64m"}),
    ):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        changed = load(project.root)
        services.start(host, changed, "api-blue", seconds=60, runbook="site-down")
        assert host.environments[-1] == limits
