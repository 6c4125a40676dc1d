"""Imports form no cycle, and a folder imports only from the folders that it may import."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.contracts.import_graph import Graph, cycles, graph
from tests.contracts.tree import ROOT, files, nodes, text

# Each package, and the root folder of its imports.
PACKAGES = {"scripts": "scripts", "api": "", "worker": "", "backup": "", "counter": ""}
# The folders that each folder of scripts/stack may import. `stack` itself contains the modules that
# all folders need, such as the runner.
COMMON = {"stack", "stack/rules", "stack/commands", "stack/config"}
BELOW = {
    "stack/__main__": {*COMMON, "stack/parts", "stack/stories"},
    "stack": {"stack/commands"},
    "stack/stories": {*COMMON, "stack/parts"},
    "stack/parts": COMMON,
    "stack/rules": COMMON - {"stack/rules"},
    "stack/commands": set[str](),
    "stack/config": {"stack"},
}
PARTS_OF_A_STORY = {("deploy", "plan"), ("deploy", "up"), ("upgrade_postgres", "backup")}
# This module may import the whole application, because it prints the schema of the whole API.
TOOLS_OF_THE_API = {"api.openapi"}
# A health check starts every 10 s in each container, so its program imports only modules that load
# quickly.
LIGHT = {"os", "socket", "sys", "time", "pathlib"}
PROBES = ("api/health/probe.py", "worker/health.py", "backup/health.py", "counter/health.py")
DOMAINS = sorted(path.parent for path in files("api/*/routes.py"))


def imports(*patterns: str) -> Iterator[tuple[Path, str]]:
    """Yield a pair of file and module for each import, including imports inside functions."""
    for path, node in nodes(*patterns):
        if isinstance(node, ast.Import):
            yield from ((path, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its target"
            yield path, str(node.module)
            yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def graph_of(name: str) -> Graph:
    """Return the imports among the modules of a package that PACKAGES names."""
    return graph({path: text(path) for path in files(f"{name}/**/*.py")}, Path(PACKAGES[name]))


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


@pytest.mark.parametrize("other", ["tests", "scripts", "stack", "sink", "backup", "counter"])
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


def test_the_counter_needs_python_alone_and_runs_no_program() -> None:
    foreign = {package(name) for _, name in imports("counter/**/*.py")}
    assert foreign - set(sys.stdlib_module_names) == {"counter"}
    assert importers("subprocess", "counter/**/*.py") == set()


def test_no_program_is_run_through_a_shell() -> None:
    for path, node in nodes("api/**/*.py", "worker/**/*.py", "backup/**/*.py", "scripts/**/*.py"):
        assert not (isinstance(node, ast.keyword) and node.arg == "shell"), path


@pytest.mark.parametrize("name", PACKAGES)
def test_no_module_imports_itself_through_others(name: str, figure: Figure) -> None:
    package_graph = graph_of(name)
    figure(f"imports of {package_graph.summary(name)}")
    assert cycles(package_graph.edges) == []


def test_a_folder_of_the_scripts_imports_the_folders_below_it_alone() -> None:
    imported = graph_of("scripts").folder_edges
    assert {folder: targets - BELOW[folder] for folder, targets in imported.items()} == {
        folder: set() for folder in imported
    }


def test_rules_commands_and_configuration_do_not_know_the_runner() -> None:
    edges = graph_of("scripts").edges
    pure = ("stack.rules", "stack.commands", "stack.config")
    root = {
        target
        for module, targets in edges.items()
        if module.startswith(pure)
        for target in targets
        if target.count(".") == 1
    }
    assert root == {"stack.failure"}


def test_a_story_calls_no_other_but_those_that_are_part_of_it() -> None:
    stories = {
        (module.rpartition(".")[2], target.rpartition(".")[2])
        for module, targets in graph_of("scripts").edges.items()
        if module.startswith("stack.stories.")
        for target in targets
        if target.startswith("stack.stories.")
    }
    assert stories == PARTS_OF_A_STORY


def test_a_story_is_imported_by_stories_alone() -> None:
    # The command line loads a story by its name, without an import statement.
    callers = {
        module
        for module, targets in graph_of("scripts").edges.items()
        if any(target.startswith("stack.stories.") for target in targets)
    }
    assert {name for name in callers if not name.startswith("stack.stories.")} == set()


def test_no_part_of_the_api_imports_what_puts_the_parts_together() -> None:
    upward = {
        (module, target)
        for module, targets in graph_of("api").edges.items()
        for target in targets
        if target in {"api.app", "api.main"} and module not in {"api.app", "api.main"}
    }
    assert {
        (module, target) for module, target in upward if module not in TOOLS_OF_THE_API
    } == set()


def test_a_cycle_is_found_and_a_line_is_none() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


@pytest.mark.parametrize("file", PROBES)
def test_a_probe_imports_light_modules_only(file: str) -> None:
    assert {package(name) for _, name in imports(file)} <= LIGHT


@pytest.mark.parametrize("file", PROBES)
def test_the_packages_above_a_probe_are_empty(file: str) -> None:
    for folder in Path(file).parents[:-1]:
        assert text(folder / "__init__.py") == "", (
            f"{folder}/__init__.py is not empty, and every health check loads this file"
        )


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_every_domain_has_the_same_files(domain: Path) -> None:
    for name in ("__init__.py", "routes.py", "schemas.py", "service.py"):
        assert (ROOT / domain / name).is_file()
