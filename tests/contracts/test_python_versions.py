"""scripts/ runs on an old host's Python; api/ and worker/ run only on the image's Python."""

import ast
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from stack.parts.images import OFFICIAL

from tests.contracts.tree import ROOT, files, text

PROJECT = tomllib.loads(text("pyproject.toml"))
HOST = (3, 11)  # Python of Debian 12, the oldest host that the scripts support
ON_THE_HOST = files("scripts/stack/**/*.py")
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, "scripts")
import stack
for module in pkgutil.walk_packages(stack.__path__, "stack."):
    if module.name != "stack.__main__":
        importlib.import_module(module.name)
        print(module.name)
print(*sys.version_info[:2], sep=".")
"""


@pytest.mark.parametrize("path", ON_THE_HOST, ids=str)
def test_the_scripts_keep_to_the_grammar_of_the_oldest_host(path: Path) -> None:
    ast.parse(text(path), str(path), feature_version=HOST)


@pytest.mark.parametrize(
    "source", ["type Pair = tuple[int, int]", "def first[T](values: list[T]) -> T: ..."]
)
def test_a_newer_grammar_is_refused(source: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(source, feature_version=HOST)


def test_every_module_of_the_scripts_can_be_imported_on_the_oldest_host() -> None:
    python = shutil.which("python3.11")
    if not python:
        pytest.skip("no python3.11 on this machine")
    # With -I and -S, Python finds only the standard library, as on a bare server.
    argv = [python, "-I", "-S", "-c", IMPORT_ALL]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    *imported, version = run.stdout.splitlines()
    assert version == "3.11"
    expected = {
        ".".join(path.relative_to("scripts").with_suffix("").parts).removesuffix(".__init__")
        for path in ON_THE_HOST
    }
    assert set(imported) == expected - {"stack", "stack.__main__"}


def test_the_tools_judge_by_the_oldest_python_that_runs_the_code() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"


def test_the_image_has_python_3_13() -> None:
    """tests/stack/test_release_image.py imports every module in the image."""
    assert OFFICIAL["python"].startswith("python:3.13-")
