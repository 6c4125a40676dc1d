"""`.env.example`, compose files, scripts and settings of the API name the same variables."""

import ast
import json
import re
from typing import Any, TypeGuard

import pytest
from pydantic.fields import FieldInfo
from stack.config import environment
from stack.config.checks import CPU_KEYS
from stack.config.defaults import (
    DEFAULTS,
    DEVELOPMENT_SETTINGS,
    PUBLIC_DEFAULTS,
    PUBLIC_PORTS,
    PUBLIC_SETTINGS,
)
from stack.config.keys import IDENTITY, KEYS, LIMITS, NEEDED, SET_BY_SCRIPTS, Scope, of_scope
from stack.config.project import BASES
from stack.parts import slot_files
from stack.parts.configuration import FIRST_KEYS

from api.configuring.settings import ProcessSettings, Settings, WorkerSettings
from tests.contracts.compose_files import (
    APP_SERVICES,
    COMPOSE,
    FILES,
    SERVICES,
    defaulted,
    load,
    variables,
)
from tests.contracts.tree import ROOT, nodes, text

QUESTION_WORDS = {"Which", "On", "How", "Is", "Does", "After", "Who", "When", "May", "To", "Must"}
QUESTION_WORDS |= {"Where", "For", "What"}
EXAMPLE = text(".env.example")
KNOWN = environment.known_keys(ROOT / ".env.example")
IN_COMPOSE = {name for file in FILES for name, _ in variables(text(file))}
KINDS: dict[str, type[ProcessSettings]] = {
    "api": Settings,
    "worker": WorkerSettings,
    "migrate": ProcessSettings,
}


def script_keys() -> set[str]:
    """Return the keys of `.env` that the scripts name."""
    literals = {
        node.value for _, node in nodes("scripts/stack/**/*.py") if isinstance(node, ast.Constant)
    }
    names = {
        value
        for value in literals
        if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]+", value)
    }
    return names | {f"{base.upper()}_IMAGE" for base in BASES}


def environment_reads() -> set[str]:
    """Return the variables that the application reads without its settings classes."""
    names = set()
    for _, node in nodes("api/**/*.py", "worker/**/*.py"):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"os.environ.get", "os.getenv"}:
            names.add(ast.literal_eval(node.args[0]))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            names.add(ast.literal_eval(node.slice))
    return names


def variable_of(name: str, field: FieldInfo) -> str:
    return field.validation_alias if isinstance(field.validation_alias, str) else name.upper()


def fields(kind: type[ProcessSettings]) -> dict[str, FieldInfo]:
    return {variable_of(name, field): field for name, field in kind.model_fields.items()}


def given(service: str) -> dict[str, str]:
    """Return the variables of a service and of its slot's file, each with its default."""
    own = {key: defaulted(value) for key, value in SERVICES[service]["environment"].items()}
    if "env_file" not in SERVICES[service]:
        return own
    slot = {key: KEYS[key].default for key in of_scope(Scope.SERVICE) if key not in LIMITS}
    return {slot_files.HOSTS: KEYS["SLIPWAY_HOST"].default, **slot, **own}


def kind_of(service: str) -> type[ProcessSettings]:
    return KINDS[service.split("-", maxsplit=1)[0]]


def test_every_variable_of_the_compose_files_is_explained() -> None:
    assert IN_COMPOSE <= KNOWN


def test_every_explained_variable_is_read_by_the_compose_files_or_the_scripts() -> None:
    assert IN_COMPOSE | script_keys() >= KNOWN


def test_the_table_of_keys_has_every_key_of_the_example_and_no_other() -> None:
    assert {*KEYS, *SET_BY_SCRIPTS} == KNOWN
    assert not set(KEYS) & set(SET_BY_SCRIPTS)
    assert {*NEEDED, *IDENTITY, *LIMITS} <= set(KEYS)


def test_a_value_is_turned_into_a_number_in_one_module() -> None:
    """A later int() of a value would fail in the middle of a deploy."""
    reads = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, node in nodes("scripts/stack/**/*.py")
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"int", "float"}
        and re.search(r"\.(setting|values)\b", ast.unparse(node))
    ]
    assert reads == []


def test_the_scripts_read_no_setting_that_is_not_explained() -> None:
    assert set(DEFAULTS) <= KNOWN
    keys = {
        ast.literal_eval(node.args[0])
        for _, node in nodes("scripts/stack/**/*.py")
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".setting")
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(keys) > 5
    assert keys <= set(DEFAULTS)


def test_the_scripts_read_settings_with_their_default_from_one_table() -> None:
    """`values.get("KEY") or 5` outside config/ would be a second place for a default."""
    reads = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, node in nodes("scripts/stack/**/*.py")
        if path.parent.name != "config" and is_read_of_values(node)
    ]
    assert reads == []


def is_read_of_values(node: ast.AST) -> TypeGuard[ast.expr]:
    """Whether a node reads a value of a project, by `values.get(...)` or by `values[...]`."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).endswith(".values.get")
    return isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".values")


@pytest.mark.parametrize("key", [key for key, default in DEFAULTS.items() if default])
def test_the_scripts_the_compose_files_and_the_example_agree_on_a_default(key: str) -> None:
    shown = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", EXAMPLE, re.MULTILINE))[key]
    if shown:  # the example shows the default as the value
        assert shown == DEFAULTS[key]
    else:
        assert_is_explained(key, DEFAULTS[key])
    in_compose = {default for name, default in variables(text("compose.yaml")) if name == key}
    assert {default for default in in_compose if default is not None} <= {DEFAULTS[key]}


def test_the_defaults_of_a_public_host_are_those_of_its_compose_file() -> None:
    given = dict(variables(text("compose.prod.yaml")))
    assert {key: given[key] for key in PUBLIC_DEFAULTS} == PUBLIC_DEFAULTS
    published = "\n".join(load("compose.prod.yaml")["services"]["nginx"]["ports"])
    for key, port in PUBLIC_PORTS.items():
        assert f"${{{key.removesuffix('_PORT')}_BIND:-0.0.0.0}}:{port}:" in published


def test_the_scripts_know_every_limit_of_cpus_and_write_none_that_is_not_explained() -> None:
    assert set(CPU_KEYS) == {key for key in KNOWN if key.endswith("_CPUS")}
    assert set(FIRST_KEYS) <= KNOWN


@pytest.mark.parametrize("service", APP_SERVICES)
def test_every_variable_that_a_service_is_given_is_read(service: str) -> None:
    readable = set(fields(Settings)) | set(fields(WorkerSettings)) | environment_reads()
    for file in FILES:
        assert set(load(file)["services"][service]["environment"]) <= readable


def test_every_key_of_the_service_is_read_by_the_service() -> None:
    readable = set(fields(Settings)) | set(fields(WorkerSettings)) | environment_reads()
    assert set(of_scope(Scope.SERVICE)) - set(LIMITS) <= readable


def test_the_containers_of_a_slot_read_no_key_of_the_service_from_env_but_their_limits() -> None:
    """A bare `docker compose up` after an edit of .env must not replace a serving container."""
    for slot in ("blue", "green"):
        for kind in ("api", "worker"):
            service = SERVICES[f"{kind}-{slot}"]
            (file,) = service["env_file"]
            assert file["path"].endswith(f"}}/slots/{slot}.env")
            read = {name for name, _ in variables(json.dumps(service))}
            assert read & set(of_scope(Scope.SERVICE)) <= set(LIMITS)


@pytest.mark.parametrize(
    ("file", "forced"),
    [("compose.prod.yaml", PUBLIC_SETTINGS), ("compose.dev.yaml", DEVELOPMENT_SETTINGS)],
)
def test_what_a_compose_file_forces_is_part_of_the_deployment(
    file: str, forced: dict[str, str]
) -> None:
    own = set(of_scope(Scope.SERVICE))
    for service in ("api-blue", "worker-blue", "api-green", "worker-green"):
        environment_ = load(file)["services"][service]["environment"]
        assert {key: value for key, value in environment_.items() if key in own} == forced


@pytest.mark.parametrize("service", APP_SERVICES)
def test_every_required_setting_is_given(service: str) -> None:
    names = set(given(service)) | {name.upper() for name in SERVICES[service]["secrets"]}
    required = {name for name, field in fields(kind_of(service)).items() if field.is_required()}
    assert required <= names


@pytest.mark.parametrize("service", APP_SERVICES)
def test_no_service_holds_a_secret_that_it_does_not_read(service: str) -> None:
    assert {name.upper() for name in SERVICES[service]["secrets"]} <= set(fields(kind_of(service)))


@pytest.mark.parametrize("slot", ["blue", "green"])
def test_the_api_can_judge_the_settings_of_its_worker(slot: str) -> None:
    """`scripts/check-config.sh` checks the worker's settings in the API's container too."""
    api, worker = SERVICES[f"api-{slot}"], SERVICES[f"worker-{slot}"]
    assert set(worker["environment"]) <= set(api["environment"])
    assert set(worker["secrets"]) <= set(api["secrets"])


def test_every_secret_of_the_compose_file_is_made_by_the_scripts() -> None:
    made = {
        node.value for _, node in nodes("scripts/stack/**/*.py") if isinstance(node, ast.Constant)
    }
    assert set(COMPOSE["secrets"]) <= made


@pytest.mark.parametrize("service", APP_SERVICES)
def test_the_defaults_of_the_compose_file_are_those_of_the_settings(service: str) -> None:
    compared = 0
    for key, value in given(service).items():
        field = fields(kind_of(service)).get(key)
        if field is None or field.is_required() or key.startswith("SLIPWAY_"):
            continue
        assert value.lower() == (
            "" if field.default in (None, ()) else str(field.default).lower()
        ), key
        compared += 1
    assert compared >= 3


def test_a_variable_has_one_default_in_a_file() -> None:
    for file in FILES:
        defaults_of: dict[str, set[str | None]] = {}
        for name, default in variables(text(file)):
            defaults_of.setdefault(name, set()).add(default)
        assert {name: defaults for name, defaults in defaults_of.items() if len(defaults) > 1} == {}


def explained_defaults() -> dict[str, tuple[list[str], str]]:
    """Map each key of `.env.example` to the keys of its group and the comment's `Default:`."""
    explained = {}
    for comment, keys in re.findall(r"((?:^#.*\n)+)((?:^[A-Z0-9_]+=.*\n)+)", EXAMPLE, re.MULTILINE):
        prose = " ".join(line.removeprefix("#").strip() for line in comment.splitlines())
        stated = re.search(r"Default: (.*?)\.(?: |$)", prose)
        names = re.findall(r"^(\w+)=", keys, re.MULTILINE)
        if stated:
            explained.update(dict.fromkeys(names, (names, stated[1])))
    return explained


def groups() -> list[tuple[str, list[str]]]:
    """Return each comment of `.env.example`, in one line, with the keys below it."""
    blocks = re.findall(r"((?:^#.*\n)*)((?:^[A-Z0-9_]+=.*\n)+)", EXAMPLE, re.MULTILINE)
    return [
        (
            " ".join(line.removeprefix("#").strip() for line in comment.splitlines()),
            re.findall(r"^(\w+)=", keys, re.MULTILINE),
        )
        for comment, keys in blocks
    ]


@pytest.mark.parametrize(("comment", "keys"), groups(), ids=lambda value: str(value)[:30])
def test_a_setting_is_explained_by_a_question_and_its_default(
    comment: str, keys: list[str]
) -> None:
    """`.env.example` is the manual, in which an operator looks for a question, not for a key."""
    question, mark, answer = comment.partition("?")
    assert mark, f"the comment of {keys} asks no question"
    assert question.split()[0] in QUESTION_WORDS, f"{keys}: {question}?"
    assert re.search(r"\bDefault\b|\bNo default\b", answer) or keys == ["SLIPWAY_HOST"]


def test_most_of_the_example_is_explanation() -> None:
    written = [line for line in EXAMPLE.splitlines() if line]
    comments = [line for line in written if line.startswith("#")]
    assert len(comments) / len(written) > 0.7


def compose_defaults() -> list[tuple[str, str]]:
    pairs = {
        (name, default) for file in FILES for name, default in variables(text(file)) if default
    }
    commented = set(re.findall(r"^# ?([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))
    return sorted(pair for pair in pairs if pair[0] not in commented)


@pytest.mark.parametrize(("name", "default"), compose_defaults())
def test_the_explained_default_is_the_real_one(name: str, default: str) -> None:
    assert_is_explained(name, default)


def assert_is_explained(name: str, default: str) -> None:
    explained = explained_defaults()
    assert name in explained, f"the comment of {name} states no default, which is {default}"
    names, stated = explained[name]
    values = re.split(r", (?:and )?| and ", stated)
    if len(values) == len(names) and not any(" " in value for value in values):
        assert values[names.index(name)] == default
    else:  # the comment states the default in a sentence
        assert default in re.split(r",? ", stated)


def test_the_default_name_of_the_project_is_the_compose_file_s() -> None:
    names, stated = explained_defaults()["COMPOSE_PROJECT_NAME"]
    assert stated.split(" and ")[names.index("COMPOSE_PROJECT_NAME")] == COMPOSE["name"]


def test_no_compose_file_holds_a_secret_in_its_environment() -> None:
    given: list[dict[str, Any]] = [
        s.get("environment", {}) for f in FILES for s in load(f)["services"].values()
    ]
    secret = re.compile(r"PASSWORD|TOKEN_KEY|SECRET|DSN")
    assert [key for variables in given for key in variables if secret.search(key)] == []
