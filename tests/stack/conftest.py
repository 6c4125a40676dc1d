"""Brings up the stack of each worker process with the command that users type."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import uses_fixture
from tests.stack import kept
from tests.stack.harness import IS_KEPT, Stack, copy_checkout, reserved_project, wait_until

TABLES = (
    "select schemaname || '.' || tablename from pg_tables "
    "where schemaname not in ('pg_catalog', 'information_schema')"
)


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
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is built but not started; removed by name after the session."""
    root = tmp_path_factory.mktemp("checkout")
    copy_checkout(root)
    made = Stack(root)
    with reserved_project():
        if has_engine():  # otherwise up.sh installs or starts the engine
            made.remove()  # leftovers of an interrupted run
        try:
            made.prepare()
            yield made
        finally:
            if has_engine():
                made.remove()


@pytest.fixture(scope="session", autouse=True)
def _base_images(request: pytest.FixtureRequest) -> None:
    """Build the base images, one at a time, before any test brings up a stack."""
    if not IS_KEPT:
        request.getfixturevalue("prepared")


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Stack:
    """A running stack under a project name of its own."""
    if IS_KEPT:
        return kept.bring_up()
    made: Stack = request.getfixturevalue("prepared")
    print(made.run("./scripts/up.sh", timeout=600).stdout)
    return made


@pytest.fixture(scope="module", autouse=True)
def _no_table_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that the tests of a file drop their tables: the order of files differs between runs."""
    if not uses_fixture(request, "stack"):
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    tables = set(stack.sql(TABLES).split())
    yield
    assert set(stack.sql(TABLES).split()) == tables


@pytest.fixture(autouse=True)
def _whole_stack(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that the stack serves before and after each test; a broken stack fails the test."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    wait_until(stack.is_serving, 60, "the stack serves before the test")
    yield
    wait_until(stack.is_serving, 60, "the stack serves after the test")
