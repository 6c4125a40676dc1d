"""Checks every file for addresses and paths of a machine, inexact pins, and excessive length."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from stack.parts.images import OFFICIAL
from stack.parts.sources import KEPT_OUT, SOURCES

from tests.contracts.tree import ROOT, files, lines, text

# Each name is split in two, so that this file passes its own test.
REGISTRIES = [
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("npm", "js.org"),
    ("npm", "js.com"),
    ("deb", ".debian.org"),
    ("security", ".debian.org"),
    ("snapshot", ".debian.org"),
    ("ftp.", "debian.org"),
    ("archive", ".ubuntu.com"),
    ("security", ".ubuntu.com"),
    ("ports", ".ubuntu.com"),
    ("registry-1", ".docker"),
    ("hub", ".docker.com"),
    ("download", ".docker.com"),
    ("index", ".docker"),
    ("gh", "cr.io"),
    ("qu", "ay.io"),
    ("mcr.", "microsoft"),
    ("crates", ".io"),
]
REGISTRY = re.compile("|".join(re.escape(a + b) for a, b in REGISTRIES), re.IGNORECASE)
MACHINE = re.compile(r"(?<![\w.$}-])/(?:home|Users|work|workspace|mnt)/\w")
UNFINISHED = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", re.MULTILINE)
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
PYTHON = files("**/*.py")
SCRIPTS = files("scripts/*.sh", ".ci/*")
ENTRY_POINTS = files("*/entrypoint.sh")
PROJECT = tomllib.loads(text("pyproject.toml"))


def found(pattern: re.Pattern[str]) -> list[str]:
    every = (
        (path, number, line) for path in files("**") for number, line in enumerate(lines(path), 1)
    )
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, number, line in every
        if pattern.search(line)
    ]


def test_no_file_names_a_package_registry() -> None:
    assert found(REGISTRY) == []


@pytest.mark.parametrize(
    "host", ["files.python" + "hosted.org", "deb" + ".debian.org", "registry.npm" + "js.org"]
)
def test_a_registry_would_be_seen(host: str) -> None:
    assert REGISTRY.search(f"https://{host}/simple")


def test_no_file_holds_a_path_of_somebody_s_machine() -> None:
    assert found(MACHINE) == []


def test_nothing_is_left_unfinished() -> None:
    assert found(UNFINISHED) == []


def requirements(lock: str) -> dict[str, str]:
    """Return each requirement of a lock file with its continuation lines."""
    entries = re.split(r"^(?=\S)", text(lock), flags=re.MULTILINE)
    return {entry.split("==")[0]: entry for entry in entries if entry and not entry.startswith("#")}


def versions(lock: str) -> dict[str, str]:
    return dict(PINNED.findall(text(lock)))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_a_version_and_hashes(lock: str) -> None:
    locked = requirements(lock)
    assert len(locked) >= 10
    assert [name for name, entry in locked.items() if not PINNED.match(entry)] == []
    assert [
        name
        for name, entry in locked.items()
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)
    ] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_holds_an_address(lock: str) -> None:
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|\s@\s", text(lock))


def test_runtime_dependencies_are_pinned_to_what_is_locked() -> None:
    locked = versions("requirements.lock")
    for dependency in PROJECT["project"]["dependencies"]:
        pin = PINNED.fullmatch(dependency)
        assert pin, f"{dependency} is not an exact pin"
        assert locked[pin[1]] == pin[2]


def test_what_is_tested_is_what_runs() -> None:
    locked, tested = versions("requirements.lock"), versions("requirements-dev.lock")
    assert {name: tested.get(name) for name in locked} == locked


@pytest.mark.parametrize(
    ("group", "lock"), [("dev", "requirements-dev.lock"), ("build", "requirements-build.lock")]
)
def test_every_tool_is_locked(group: str, lock: str) -> None:
    locked = versions(lock)
    for dependency in PROJECT["dependency-groups"][group]:
        name, _, version = re.sub(r"\[.*?\]", "", dependency).partition("==")
        assert locked[name] == (version or locked[name])


@pytest.mark.parametrize("path", [*SCRIPTS, *ENTRY_POINTS], ids=str)
def test_every_script_can_be_run_and_stops_at_the_first_error(path: Path) -> None:
    assert (ROOT / path).stat().st_mode & 0o111 == 0o111
    code = [line for line in lines(path) if line and not line.startswith("#")]
    assert lines(path)[0] == "#!/usr/bin/env bash"
    assert code[0] == "set -Eeuo pipefail"


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_every_script_is_thin(path: Path) -> None:
    source = lines(path)
    assert re.match(rf"# usage: {re.escape(str(path))}( .*)? {{4}}\S", source[1])
    assert len(source) <= 30
    assert re.match(r"([A-Z]+=\S+ )*exec ", source[-1])


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=str)
def test_every_entry_point_becomes_its_service(path: Path) -> None:
    source = [line.strip() for line in lines(path) if line.strip()]
    body = (
        source[: source.index("}", source.index("_main() {"))]
        if source[-1] == '_main "$@"'
        else source
    )
    assert body[-1].startswith("exec ")


def test_python_files_are_short() -> None:
    assert {str(path): len(lines(path)) for path in PYTHON if len(lines(path)) > 400} == {}


def test_functions_are_short() -> None:
    long = {}
    for path in PYTHON:
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    long[f"{path}:{node.name}"] = length
    assert long == {}


def test_every_module_of_the_product_says_what_it_is_for() -> None:
    folders = ("api", "worker", "backup", "counter", "scripts")
    product = files(*(f"{folder}/**/*.py" for folder in folders))
    assert [str(p) for p in product if text(p) and not ast.get_docstring(ast.parse(text(p)))] == []


@pytest.mark.parametrize("image", OFFICIAL.values())
def test_every_official_base_image_has_a_version(image: str) -> None:
    assert re.fullmatch(r"[a-z]+:\d+(\.\d+)*(-[a-z]+)*", image)


def test_everything_the_image_is_made_of_is_in_the_release_s_hash() -> None:
    production = text("Dockerfile").partition(" AS development")[0]
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", production, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied
    assert copied | {"Dockerfile", ".dockerignore"} == set(SOURCES)


def test_nothing_but_what_the_image_needs_reaches_the_build() -> None:
    rules = [line for line in lines(Path(".dockerignore")) if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {*SOURCES, "requirements-dev.lock"} - {"Dockerfile", ".dockerignore"}
    assert rules[-len(KEPT_OUT) :] == [f"**/{rule}" for rule in KEPT_OUT]


@pytest.mark.parametrize("path", [".env", "secrets", ".venv", "uv.lock"])
def test_what_is_private_to_a_machine_is_not_tracked(path: str) -> None:
    assert path in {line.rstrip("/") for line in lines(Path(".gitignore"))}
    assert files(path, f"{path}/**") == []
