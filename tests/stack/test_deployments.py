"""A change of settings alone is a deployment: no request fails, and it has a way back."""

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack
from tests.stack.load import Load
from tests.stack.settings import edited

pytestmark = pytest.mark.drill


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


def test_a_bare_compose_up_after_an_edit_of_the_service_s_keys_changes_nothing(
    stack: Stack,
) -> None:
    before = ids(stack)
    with edited(stack, LOG_LEVEL="DEBUG", USER_LIMIT_PER_SECOND="77"):
        stack.compose("up", "--detach")
    assert ids(stack) == before
