"""Injects the runbook's incidents of another owner and of secrets that do not fit."""

import json
from collections.abc import Callable

from tests.stack.harness import Stack


def owned_by_another_checkout(stack: Stack) -> None:
    """The record of the owner names a second checkout, which exists."""
    other = stack.root / "state/other-checkout"
    other.mkdir(exist_ok=True)
    (other / "compose.yaml").touch()
    file = stack.root / "state/owner.json"
    owner = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**owner, "checkout": str(other)}), encoding="utf-8")
    assert str(other) in stack.run("./scripts/up.sh", check=False).stderr


def lost_secrets(stack: Stack) -> None:
    """Four secrets are lost, one to an empty file; the containers still have them."""
    for name in ("backup_key", "redis_admin_password", "redis_password", "token_key"):
        (stack.root / "secrets" / name).unlink()
    (stack.root / "secrets/redis_admin_password").touch()
    refused = stack.run("./scripts/up.sh", check=False)
    assert refused.returncode == 1
    assert "secrets/backup_key is missing, and the volume" in refused.stderr
    assert "secrets/redis_admin_password is empty" in refused.stderr


CUSTODY_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "another-checkout-owns-the-stack": owned_by_another_checkout,
    "secrets-and-data-do-not-fit": lost_secrets,
}
