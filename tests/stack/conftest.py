"""Brings one stack up for all the tests of this folder, by the command that its users type."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.harness import Stack, copy_checkout, wait_until


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack under a project name of its own; removed afterwards, by that name."""
    root: Path = tmp_path_factory.mktemp("checkout")
    copy_checkout(root)
    made = Stack(root)
    made.remove()  # what a run that was cut off left behind
    try:
        print(made.run("./scripts/up.sh", timeout=1500).stdout)
        yield made
    finally:
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
