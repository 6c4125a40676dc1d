"""A change of settings alone is a deployment: no request fails, and it can be rolled back."""

from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack
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


@pytest.mark.counts_losses
def test_a_setting_is_deployed_and_taken_back_without_a_failed_request(
    stack: Stack, figure: Figure
) -> None:
    stack.deploy()
    number, before = stack.ledger()[-1]["deployment"], setting_of(stack, "REFRESH_TOKEN_DAYS")
    load = Load(stack, rate=20)
    with load.running() as report, edited(stack, REFRESH_TOKEN_DAYS="29"):
        stack.deploy()
        assert setting_of(stack, "REFRESH_TOKEN_DAYS") == "29"
        done = stack.run("./scripts/rollback.sh")
        assert f"REFRESH_TOKEN_DAYS: 29 -> {before}" in done.stdout
    assert report.failures == []
    assert setting_of(stack, "REFRESH_TOKEN_DAYS") == before
    assert stack.ledger()[-1]["deployment"] == number
    figure(
        f"a setting deployed and taken back: {report.sent} requests, {len(report.failures)} failed"
    )


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
