"""The README's first command on a machine without a stack: every setting has its default."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.config.keys import KEYS
from stack.config.project import default_state

from tests.stack.harness import ROOT, Stack, copy_checkout

pytestmark = [pytest.mark.stack, pytest.mark.alone]
PROJECT = KEYS["COMPOSE_PROJECT_NAME"].default
STATE = default_state(PROJECT)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Stack]:
    """A stack on a machine that has none with the default name; removed afterwards."""
    copy_checkout(tmp_path)
    made = Stack(tmp_path, project=PROJECT)
    # A person's shell sets none of the keys of `.env`; the process of the tests may.
    made.environment = {key: value for key, value in os.environ.items() if key not in KEYS}
    kept = ("--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    containers = made.run("docker", "ps", "--all", *kept).stdout
    if STATE.exists() or containers or made.run("docker", "volume", "ls", *kept).stdout:
        pytest.skip(f"this machine has a stack with the default name, {PROJECT}")
    yield made
    made.remove()
    shutil.rmtree(STATE)


@pytest.mark.parametrize("is_copied", [False, True], ids=["no .env", ".env.example copied"])
def test_the_first_command_brings_up_a_stack_with_every_default(
    first: Stack, is_copied: bool
) -> None:
    if is_copied:
        shutil.copy(ROOT / ".env.example", first.root / ".env")
    shown = first.run("./scripts/up.sh").stdout
    assert shown.splitlines()[-1].startswith("live: release ")
    assert shown.splitlines()[-1].endswith(" in slot blue, answering at https://localhost:8443")
    ask = ["curl", "--fail", "--silent", "--cacert", "secrets/tls/fullchain.pem"]
    assert '"ready"' in first.run(*ask, "https://localhost:8443/readyz").stdout
    assert STATE.is_dir()
