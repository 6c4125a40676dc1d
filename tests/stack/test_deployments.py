"""A change of settings alone is a deployment: no request fails, and it can be rolled back."""

from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load
from tests.stack.settings import edited

pytestmark = pytest.mark.drill


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    """Leave blue live, with the settings of `.env`: other tests use its services by name."""
    yield
    if stack.live()[1] != "blue":
        stack.deploy()
    stack.back_to_blue()


def setting_of(stack: Stack, key: str) -> str:
    """Return a variable of the live API's container."""
    live = stack.live()[1]
    return stack.compose("exec", "--no-TTY", f"api-{live}", "printenv", key).strip()


def ids(stack: Stack) -> set[str]:
    return set(stack.compose("--profile", "*", "ps", "--all", "--quiet").split())


# A key of each scope; RATE_LIMIT_PER_SECOND is nginx', and the harness sets it in the environment.
OF_OTHER_SCOPES = {"POSTGRES_MEMORY": "300m", "BACKUP_HOURS": "7", "KEEP_RELEASES": "4"}


@pytest.mark.counts_losses
def test_settings_of_each_scope_are_deployed_and_the_service_s_are_taken_back(
    stack: Stack, figure: Figure
) -> None:
    stack.deploy()
    number, before = stack.ledger()[-1]["deployment"], setting_of(stack, "REFRESH_TOKEN_DAYS")
    with (
        Load(stack, rate=20).running() as report,
        edited(stack, REFRESH_TOKEN_DAYS="29", **OF_OTHER_SCOPES),
    ):
        stack.deploy(RATE_LIMIT_PER_SECOND="1999")
        assert setting_of(stack, "REFRESH_TOKEN_DAYS") == "29"
        done = stack.run("./scripts/rollback.sh", RATE_LIMIT_PER_SECOND="1999")
        assert f"REFRESH_TOKEN_DAYS: 29 -> {before}" in done.stdout
        text = (stack.root / ".env").read_text(encoding="utf-8")
        kept = [f"{key}={value}\n" in text for key, value in OF_OTHER_SCOPES.items()]
    assert report.failures_besides_reloads() == []
    assert all(kept), "a rollback changes the service's keys only"
    zone = stack.compose("exec", "--no-TTY", "nginx", "cat", "/tmp/nginx/zone.conf")
    assert "rate=1999r/s" in zone
    assert setting_of(stack, "REFRESH_TOKEN_DAYS") == before
    assert stack.ledger()[-1]["deployment"] == number
    figure(
        f"settings of each scope deployed, the service's taken back: {report.sent} requests, "
        f"{len(report.failures)} failed"
    )


@pytest.mark.counts_losses
def test_without_its_live_container_the_site_comes_back_from_the_warm_slot(
    stack: Stack, figure: Figure
) -> None:
    """The warm slot has the same release with other settings: nothing needs to start."""
    with edited(stack, REFRESH_TOKEN_DAYS="29"):
        stack.deploy()
    live = stack.live()[1]
    warm = f"api-{'green' if live == 'blue' else 'blue'}"
    started_at = stack.inspect(warm)["State"]["StartedAt"]
    with Load(stack, rate=20).running() as report:
        report.wait_for_answers(20)
        stack.run("docker", "rm", "--force", stack.container(f"api-{live}"))
        wait_until(lambda: report.failures, 10, "requests fail without the live container")
        stack.run("./scripts/rollback.sh")
        failed = len(report.failures)
        report.wait_for_answers(20)
    # A request may have been on its way when the rollback ended.
    assert len(report.failures) <= failed + 1
    assert stack.inspect(warm)["State"]["StartedAt"] == started_at
    assert f"api-{stack.live()[1]}" == warm
    figure(f"live container deleted: {len(report.failures)} of {report.sent} requests failed")


def test_a_worker_that_is_started_again_has_the_limits_of_its_deployment(stack: Stack) -> None:
    memory = stack.inspect("worker-blue")["HostConfig"]["Memory"]
    stack.compose("rm", "--stop", "--force", "worker-blue")
    with edited(stack, WORKER_MEMORY="512m"):
        done = stack.run("./scripts/up.sh")
    assert "WORKER_MEMORY=160m docker compose up" in done.stdout
    assert stack.inspect("worker-blue")["HostConfig"]["Memory"] == memory


def test_a_bare_compose_up_after_an_edit_of_the_service_s_keys_changes_nothing(
    stack: Stack,
) -> None:
    before = ids(stack)
    with edited(stack, LOG_LEVEL="DEBUG", USER_LIMIT_PER_SECOND="77"):
        stack.compose("up", "--detach")
    assert ids(stack) == before
