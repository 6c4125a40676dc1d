"""The README's first command on a machine without a stack: every setting has its default."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.config.keys import KEYS

from tests.stack.harness import ROOT, Stack, copy_checkout

pytestmark = [pytest.mark.stack, pytest.mark.alone]
PROJECT = KEYS["COMPOSE_PROJECT_NAME"].default
STATE = Path("/var/lib/slipway") / PROJECT
# A person's shell sets none of the keys of `.env`; the process of the tests may.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in KEYS}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout on a machine that has no stack with the default name; removed afterwards."""
    copy_checkout(tmp_path)
    stack = Stack(tmp_path, project=PROJECT)
    label = f"label=com.docker.compose.project={PROJECT}"
    if STATE.exists() or stack.run("docker", "ps", "--all", "--quiet", "--filter", label).stdout:
        pytest.skip(f"this machine has a stack with the default name, {PROJECT}")
    yield tmp_path
    stack.remove()
    shutil.rmtree(STATE)


def run(checkout: Path, *argv: str) -> str:
    ended = subprocess.run(
        argv,
        cwd=checkout,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("is_copied", [False, True], ids=["no .env", ".env.example copied"])
def test_the_first_command_brings_up_a_stack_with_every_default(
    checkout: Path, is_copied: bool
) -> None:
    if is_copied:
        shutil.copy(ROOT / ".env.example", checkout / ".env")
    shown = run(checkout, "./scripts/up.sh")
    assert shown.splitlines()[-1].startswith("live: release ")
    assert shown.splitlines()[-1].endswith(" in slot blue, answering at https://localhost:8443")
    ask = ["curl", "--fail", "--silent", "--cacert", "secrets/tls/fullchain.pem"]
    assert '"ready"' in run(checkout, *ask, "https://localhost:8443/readyz")
    assert STATE.is_dir()
