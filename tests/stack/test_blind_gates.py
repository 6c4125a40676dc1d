"""A watch without counts lets no release pass, and a faulty hook rolls no release back."""

from collections.abc import Iterator

import pytest

from tests.stack.harness import Stack
from tests.stack.settings import edited

pytestmark = pytest.mark.drill
SILENT = "services:\n  nginx:\n    logging: !override\n      driver: none\n"


@pytest.fixture(autouse=True)
def _as_before(stack: Stack) -> Iterator[None]:
    yield
    for path in (stack.root / "hooks").glob("*"):
        path.unlink()
    stack.back_to_blue()


def write_hook(stack: Stack, name: str, text: str) -> None:
    file = stack.root / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)


def test_a_deploy_needs_no_log_of_nginx(stack: Stack) -> None:
    """The watch queries the counter, so that an unreadable log does not matter."""
    _, slot = stack.live()
    override = stack.root / "compose.silent.yaml"
    override.write_text(SILENT, encoding="utf-8")
    files = "compose.yaml:compose.silent.yaml"
    up = ["docker", "compose", "up", "--detach", "--no-deps", "--wait", "nginx"]
    try:
        with edited(stack, COMPOSE_FILE=files):
            stack.run(*up)
            stack.vary()
            stack.deploy()
        assert stack.live()[1] != slot
    finally:
        override.unlink()
        stack.run(*up)


@pytest.mark.nightly
def test_a_hook_that_cannot_start_after_the_switch_only_warns(stack: Stack) -> None:
    write_hook(stack, "post-switch", "echo hi\n")
    _, slot = stack.live()
    stack.vary()
    completed = stack.deploy()
    assert "warning: hooks/post-switch exited with 126" in completed.stdout
    assert stack.live()[1] != slot


def test_what_a_hook_leaves_in_the_background_delays_no_deploy(stack: Stack) -> None:
    write_hook(stack, "pre-switch", "#!/bin/sh\nsleep 200 &\n")
    stack.vary()
    stack.deploy()
    assert stack.ledger()[-1]["result"] == "done"


def test_a_slot_that_redis_refuses_is_not_switched_to(stack: Stack) -> None:
    """The password changes after the preflight has logged in with it."""
    before = stack.live()
    secret = stack.root / "secrets/redis_password"
    mode, former = secret.stat().st_mode, secret.read_text(encoding="utf-8")
    change = f"chmod 0644 {secret} && echo 0123456789-another-password >{secret}"
    write_hook(stack, "pre-build", f"#!/bin/sh\n{change}\n")
    try:
        stack.vary()
        failed = stack.deploy(check=False)
    finally:
        secret.chmod(0o644)
        secret.write_text(former, encoding="utf-8")
        secret.chmod(mode)
    assert failed.returncode == 1
    assert "is degraded" in failed.stderr
    assert stack.live() == before
