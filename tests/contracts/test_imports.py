"""Imports run one way, and only where they may."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.tree import ROOT, files, nodes, text

# A health check runs every 10 s in each container: it loads nothing that takes long.
LIGHT = {"os", "socket", "sys", "time", "pathlib"}
PROBES = ("api/health/probe.py", "worker/health.py", "backup/health.py")
DOMAINS = sorted(path.parent for path in files("api/*/routes.py"))


def imports(*patterns: str) -> Iterator[tuple[Path, str]]:
    """Yield each file with each module that it imports, wherever in the file the import stands."""
    for path, node in nodes(*patterns):
        if isinstance(node, ast.Import):
            yield from ((path, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            yield path, str(node.module)
            yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def package(module: str) -> str:
    return module.partition(".")[0]


def importers(module: str, *patterns: str) -> set[str]:
    return {
        str(path)
        for path, name in imports(*patterns)
        if name == module or name.startswith(f"{module}.")
    }


def test_the_worker_imports_the_api_and_never_the_reverse() -> None:
    assert importers("worker", "api/**/*.py") == set()
    assert importers("api", "worker/**/*.py") != set()


@pytest.mark.parametrize("other", ["tests", "scripts", "stack", "sink", "backup"])
def test_what_is_in_the_image_imports_nothing_that_is_not(other: str) -> None:
    assert importers(other, "api/**/*.py", "worker/**/*.py") == set()


def test_the_worker_loads_no_web_framework() -> None:
    assert (
        importers("fastapi", "worker/**/*.py") | importers("starlette", "worker/**/*.py") == set()
    )


def test_the_scripts_import_the_standard_library_and_themselves_alone() -> None:
    foreign = {
        (str(path), name) for path, name in imports("scripts/**/*.py") if package(name) != "stack"
    }
    assert {
        (path, name) for path, name in foreign if package(name) not in sys.stdlib_module_names
    } == set()
    assert foreign


def test_the_scripts_run_programs_in_one_module() -> None:
    assert importers("subprocess", "scripts/**/*.py") == {"scripts/stack/runner.py"}
    running = {
        "os.system",
        "os.popen",
        "os.execv",
        "os.execvp",
        "os.spawnv",
        "os.fork",
        "pty.spawn",
    }
    calls = {
        ast.unparse(node.func) for _, node in nodes("scripts/**/*.py") if isinstance(node, ast.Call)
    }
    assert calls & running == set()


def test_the_backup_service_needs_what_its_image_has_and_runs_programs_in_one_module() -> None:
    foreign = {package(name) for _, name in imports("backup/**/*.py")} - set(
        sys.stdlib_module_names
    )
    assert foreign == {"backup", "prometheus_client"}
    assert importers("subprocess", "backup/**/*.py") == {"backup/programs.py"}


def test_no_program_is_run_through_a_shell() -> None:
    for path, node in nodes("api/**/*.py", "worker/**/*.py", "backup/**/*.py", "scripts/**/*.py"):
        assert not (isinstance(node, ast.keyword) and node.arg == "shell"), path


def test_builders_and_configuration_know_neither_stories_nor_the_runner() -> None:
    patterns = ("scripts/stack/commands/*.py", "scripts/stack/config/*.py")
    assert importers("stack.stories", *patterns) | importers("stack.runner", *patterns) == set()


@pytest.mark.parametrize("file", PROBES)
def test_a_probe_imports_light_modules_only(file: str) -> None:
    assert {package(name) for _, name in imports(file)} <= LIGHT


@pytest.mark.parametrize("file", PROBES)
def test_the_packages_above_a_probe_are_empty(file: str) -> None:
    for folder in Path(file).parents[:-1]:
        assert text(folder / "__init__.py") == "", (
            f"{folder}/__init__.py is loaded with every health check"
        )


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_every_domain_has_the_same_files(domain: Path) -> None:
    for name in ("__init__.py", "routes.py", "schemas.py", "service.py"):
        assert (ROOT / domain / name).is_file()
