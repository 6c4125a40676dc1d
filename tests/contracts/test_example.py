"""The platform is independent of the example: only `service.toml` names routes and tables."""

import importlib
import re

import pytest
from stack.config import service

from tests.contracts.tree import ROOT, files, lines

PLATFORM = [
    f"{folder}/**" for folder in ("scripts", "nginx", "counter", "backup", "postgres", "redis")
]
# The example's table and route `items` in any form, except Python's `.items()`.
ITEMS = r"(?<!\.)\bitems?\b"
# `users` as a table, a route or a quoted name; prose may contain the word, and Redis has a
# users.conf.
USERS = "|".join(
    [
        r"/users\b(?!\.conf)",
        r"(?<![\w{])users/",
        r"[\"'`(]users[\"'`)]",
        r"\b(?:table|from|into|join|update|like|copy) users\b",
    ]
)
NAMES = re.compile(rf"{ITEMS}|{USERS}|/v\d+\b", re.IGNORECASE)


def test_no_file_of_the_platform_names_a_route_or_a_table_of_the_example() -> None:
    named = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in files(*PLATFORM)
        for number, line in enumerate(lines(path), 1)
        if NAMES.search(line)
    ]
    assert named == []


def test_the_command_for_the_first_user_is_there_and_ends_as_the_scripts_read_it() -> None:
    first_start = service.load(ROOT).first_start
    assert first_start
    python, option, module = first_start.command
    assert (python, option) == ("python", "-m")
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    assert importlib.import_module(module).EXISTS == first_start.EXISTS


@pytest.mark.parametrize(
    "line",
    [
        'SMOKE_PATHS = "/readyz=200 /v1/things=401"',
        "location ~ ^/(v1/users|ops)(/|$) {",
        'probe(runner, "/v1/users/login")',
        "copy items to stdout",
        "insert into users select * from returned",
        "partner: SUMMARY_SECONDS in api/items",
        'TABLES = ("users",)',
    ],
)
def test_a_name_of_the_example_would_be_seen(line: str) -> None:
    assert NAMES.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "for key, value in values.items():",
        "which run as users of their own",
        "user=postgres",
        "other users of the host see a program's arguments",
    ],
)
def test_a_word_of_prose_is_no_name(line: str) -> None:
    assert not NAMES.search(line)
