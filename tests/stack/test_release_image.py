"""The programs of a release's image run on its Python, and the target `migrate` works."""

import json
from collections.abc import Iterator

import pytest

from tests.contracts.tree import ROOT
from tests.stack.harness import IMAGE, Stack

pytestmark = pytest.mark.stack
MIGRATE_IMAGE = f"{IMAGE}:migrate-target"
# Alembic loads the migrations itself: they are not a package.
IMPORT_ALL = """
import importlib, pkgutil, sys
import api, worker
for package in (api, worker):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
print(*sys.version_info[:2], sep=".")
"""


def modules(package: str) -> set[str]:
    """Return the names of the modules and packages in a package of this checkout."""
    paths = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return {name for name in names if "migrations" not in name} - {package}


def test_every_module_of_the_api_and_the_worker_can_be_imported_on_python_3_13(
    stack: Stack,
) -> None:
    argv = ["run", "--rm", "--no-deps", "--no-TTY", "api-blue", "python", "-c", IMPORT_ALL]
    *imported, version = stack.compose(*argv).strip().splitlines()
    assert version == "3.13"
    assert set(imported) >= modules("api") | modules("worker")


@pytest.fixture(scope="module")
def migrate_image(stack: Stack) -> Iterator[str]:
    """Build the target `migrate`, as a person does by hand."""
    environment = (stack.root / ".env").read_text(encoding="utf-8")
    base = environment.partition("PYTHON_IMAGE=")[2].split()[0]
    build = ["docker", "build", "--quiet", "--build-arg", f"PYTHON_IMAGE={base}"]
    stack.run(*build, "--target", "migrate", "--tag", MIGRATE_IMAGE, ".")
    yield MIGRATE_IMAGE
    stack.run("docker", "image", "rm", MIGRATE_IMAGE)


def test_the_target_migrate_runs_the_migrations_program(stack: Stack, migrate_image: str) -> None:
    run = ["docker", "run", "--rm", "--network", "none", migrate_image]
    assert "--phase {pre}" in stack.run(*run, "--help").stdout
    head = stack.compose("exec", "--no-TTY", "api-blue", "python", "-m", "api.migrate", "--head")
    assert stack.run(*run, "--head").stdout == head


def test_the_target_migrate_is_a_release_without_the_api_s_health_check(
    stack: Stack, migrate_image: str
) -> None:
    facts = json.loads(stack.run("docker", "image", "inspect", migrate_image).stdout)[0]["Config"]
    assert facts["Healthcheck"]["Test"] == ["NONE"]
    assert facts["User"] == "10001:10001"
    assert not facts["Cmd"]
