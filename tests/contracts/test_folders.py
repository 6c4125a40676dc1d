"""The folders of api/ and worker/ are ordered, and no folder imports from a later folder."""

import ast
from pathlib import Path

import pytest

from tests.contracts.test_imports import imports
from tests.contracts.tree import ROOT, files, text

# The folders from bottom to top. A folder imports only from earlier folders. Every other folder is
# a domain; all domains are above `idempotency`, which their routes use.
BELOW_DOMAINS = ("configuring", "observing", "storing", "migrating", "requests", "idempotency")
DOMAINS = "a domain"
ABOVE_DOMAINS = ("server", "migrations", "")  # "" is the root of api/, with its programs
API_LEVELS = (*BELOW_DOMAINS, DOMAINS, *ABOVE_DOMAINS)
# These names must not change: the scripts and compose files of a release also run these programs
# in the images of other releases.
PROGRAMS = {"main", "app", "migrate", "check_config", "deadletters"}


# Alembic loads these files by path.
MIGRATIONS = {Path("api/migrations"), Path("api/migrations/versions")}


def folder_of(path: Path) -> str:
    return path.parts[1] if len(path.parts) > 2 else ""


def level(folder: str) -> int:
    return API_LEVELS.index(folder if folder in API_LEVELS else DOMAINS)


def edges(package: str) -> set[tuple[str, str]]:
    """Return pairs of folders: a folder, and another folder from which it imports."""
    modules = {".".join(path.with_suffix("").parts): path for path in files(f"{package}/**/*.py")}
    pairs = ((path, modules.get(name)) for path, name in imports(f"{package}/**/*.py"))
    return {
        (folder_of(path), folder_of(imported))
        for path, imported in pairs
        if imported and folder_of(path) != folder_of(imported)
    }


def test_no_import_of_the_api_runs_upwards() -> None:
    upwards = {(above, below) for above, below in edges("api") if level(above) < level(below)}
    print(*(f"{above or '(root)'} -> {below or '(root)'}" for above, below in sorted(edges("api"))))
    assert ("requests", "storing") in edges("api")
    assert upwards == set()


def test_the_root_of_the_api_holds_programs_and_nothing_else() -> None:
    names = {path.stem for path in files("api/*.py")} - {"__init__"}
    assert names == PROGRAMS


@pytest.mark.parametrize("name", sorted(PROGRAMS - {"main", "app"}))
def test_a_program_that_scripts_run_by_name_can_be_run(name: str) -> None:
    source = ast.unparse(ast.parse(text(f"api/{name}.py")).body[-1])
    assert source.startswith("if __name__ == '__main__':")


@pytest.mark.parametrize("folder", [name for name in API_LEVELS if name not in {"", DOMAINS}])
def test_every_level_is_a_folder(folder: str) -> None:
    assert (ROOT / "api" / folder).is_dir()


@pytest.mark.parametrize("package", ["api", "worker"])
def test_every_folder_with_a_module_is_a_package(package: str) -> None:
    """The search for a domain's models and tasks silently skips a folder without `__init__.py`."""
    folders = {path.parent for path in files(f"{package}/**/*.py")} - MIGRATIONS
    assert {
        str(folder) for folder in folders if not (ROOT / folder / "__init__.py").is_file()
    } == set()
