"""Brings one stack up for all the tests of this folder, by the command that its users type."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.harness import Stack, copy_checkout, wait_until


def has_engine() -> bool:
    """Whether an engine answers on this machine."""
    if not shutil.which("docker"):
        return False
    return (
        subprocess.run(
            ["docker", "version"], capture_output=True, timeout=30, check=False
        ).returncode
        == 0
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack under a project name of its own; removed afterwards, by that name."""
    root: Path = tmp_path_factory.mktemp("checkout")
    copy_checkout(root)
    made = Stack(root)
    if has_engine():  # up.sh starts it where it does not run, and installs it where there is none
        made.remove()  # what a run that was cut off left behind
    try:
        print(made.run("./scripts/up.sh", timeout=1500).stdout)
        yield made
    finally:
        if has_engine():
            made.remove()


@pytest.fixture(autouse=True)
def _whole_stack(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the stack whole, and fails if it leaves it broken."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    wait_until(stack.is_serving, 60, "the stack serves before the test")
    yield
    wait_until(stack.is_serving, 60, "the stack serves after the test")
