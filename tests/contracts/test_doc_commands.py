"""Every command of a page exists, is run by a test, and accepts its options."""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest
from stack.__main__ import parser

from tests.contracts.compose_files import SERVICES
from tests.contracts.documents import (
    COMMANDS,
    DOCUMENTS,
    OPERATING,
    README,
    RUNBOOK,
    commands,
    fences,
    words,
)
from tests.contracts.tree import ROOT, files, nodes, text

# Finds a command in running text, such as `./scripts/deploy.sh --image REF`. PLACEHOLDERS has a
# value for each placeholder.
INLINE = re.compile(r"`\./scripts/([\w-]+)\.sh ?([^`]*)`")
PLACEHOLDERS = {
    "ID": "1",
    "SERVICE": "redis",
    "N": "5",
    "...": "",
    "[RELEASE]": "",
    "[SERVICE": "",
    "...]": "",
}
# The test that runs the `sh` blocks of a page.
RUN_BY = {
    "docs/tour.md": "test_the_walk_through_the_pages_works_as_it_stands",
    "docs/operating.md": "test_the_walk_through_the_pages_works_as_it_stands",
    "docs/your-own-service.md": "test_the_page_makes_a_service_of_books_that_passes_its_tests",
    "docs/runbook.md": "test_the_runbook_ends_the_incident",
}
# `nginx` marks the content of a file, `text` marks output, and the others mark commands.
LANGUAGES = {"sh", "console", "text", "nginx"}
# For each `console` block: the test that runs the block, or the reason why no test runs it.
CONSOLE = {
    ("README.md", "Start"): "test_the_start_of_the_readme_leads_to_an_answer",
    ("docs/operating.md", "On a public host"): "test_a_public_host_is_set_up_by_the_page",
    ("docs/operating.md", "A copy off the host"): (
        "reason: needs an account at a provider; tests/stack/test_offsite.py takes the same steps"
    ),
    ("docs/configuration.md", ""): "test_each_finding_has_its_key_reason_and_fix_and_no_value",
    ("docs/development.md", ""): (
        "reason: the second command does not end; tests/stack/test_development.py starts the same"
    ),
    ("docs/runbook.md", "Postgres major upgrade"): (
        "reason: deletes the directory of the older version, which a person decides"
    ),
    ("docs/runbook.md", "Webhooks not delivered"): "reason: takes the address of a user's receiver",
    ("docs/runbook.md", "Sessions lost after a deploy"): (
        "reason: only if the key was exposed, which a person decides"
    ),
    ("docs/runbook.md", "Clock wrong"): "reason: would set the clock of the machine of the tests",
}
# No test runs the commands of this page, because these commands run the tests.
CONTRIBUTING = Path("CONTRIBUTING.md")
WITH_COMMANDS = [path for path in DOCUMENTS if path != CONTRIBUTING and commands(path)]
# These tests read each line by itself. docs/your-own-service.md has quotes of several lines and
# creates files, so another test runs the whole page.
LINE_BY_LINE = [path for path in WITH_COMMANDS if path.name != "your-own-service.md"]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each script that `python3 -m stack` runs, by the script's name."""
    commands = next(
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        name: command
        for name, command in commands.choices.items()
        if (ROOT / f"scripts/{name}.sh").is_file()
    }


def test_every_command_and_option_of_the_scripts_is_in_the_table() -> None:
    shown = text(COMMANDS)
    assert len(parsers()) > 10
    for name, command in parsers().items():
        assert f"`./scripts/{name}.sh" in shown, name
        for option in {
            o for action in command._actions for o in action.option_strings if o.startswith("--")
        }:
            assert f"{option}" in shown, f"{name} {option}"


def test_what_mitigation_and_verification_run_can_be_copied_as_it_stands() -> None:
    """A block has no prompt, ellipsis or placeholder; the surrounding text may have them."""
    for entry in re.split(r"^## ", text(RUNBOOK), flags=re.MULTILINE)[1:]:
        for part in re.findall(
            r"^### (?:Mitigation|Verification)\n(.*?)(?=^### |\Z)", entry, re.MULTILINE | re.DOTALL
        ):
            for line in "\n".join(
                re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
            ).splitlines():
                assert not re.search(
                    r"^\$ |\.\.\.|<\w+>|\b(?:RELEASE|REF|PID|ID|NAME|SERVICE|FILE)\b(?!=)",
                    without_own(line),
                ), line


def without_own(line: str) -> str:
    """Remove the variables in capitals from a command, because the block itself sets them."""
    return re.sub(r"\$\{?[A-Z_]+|[A-Z_]+=", "", line)


def test_every_block_of_commands_is_run_by_a_test_or_has_a_reason() -> None:
    tests = {node.name for _, node in nodes("tests/**/*.py") if isinstance(node, ast.FunctionDef)}
    pages, console = set(), set()
    for path in DOCUMENTS:
        if path == CONTRIBUTING:
            continue
        for heading, language, _ in fences(path):
            assert language in LANGUAGES, f"{path}, {heading}: '{language}'"
            if language == "sh":
                pages.add(str(path))
            elif language == "console":
                console.add((str(path), heading))
    assert pages == set(RUN_BY)
    assert console == set(CONSOLE)
    named = {*RUN_BY.values(), *CONSOLE.values()}
    assert {name for name in named if not name.startswith("reason: ")} - tests == set()


@pytest.mark.parametrize("path", LINE_BY_LINE, ids=str)
def test_the_commands_can_be_read_by_a_shell(path: Path) -> None:
    assert commands(path)
    for command in commands(path):
        words(command)


@pytest.mark.parametrize("path", LINE_BY_LINE, ids=str)
def test_every_file_that_a_command_names_exists(path: Path) -> None:
    tops = {file.parts[0] for file in files("**")}
    made = {name for command in commands(path) for name in re.findall(r">(\S+)", command)}
    for command in commands(path):
        for word in words(command):
            name = word.removeprefix("./")
            is_ours = word.startswith("./") or (name.partition("/")[0] in tops and "/" in name)
            if (
                is_ours
                and name not in made
                and not name.startswith(("secrets/", ".env"))
                and not re.search(r"[*$<>]|[A-Z]{3}", name)
            ):
                assert (ROOT / name).exists(), f"{path}: `{command}` names {word}"


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=str)
def test_every_script_that_the_text_names_exists(path: Path) -> None:
    named = set(re.findall(r"\bscripts/[a-z-]+\.sh\b", text(path)))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=str)
def test_every_script_takes_the_options_it_is_shown_with(path: Path) -> None:
    for command in commands(path):
        for match in re.finditer(r"\./scripts/([\w-]+)\.sh([^|;&>]*)", command):
            if match[1] in parsers():
                parser().parse_args([match[1], *shlex.split(match[2], comments=True)])


def test_every_script_takes_the_options_that_a_text_shows_it_with() -> None:
    shown = [
        (match[1], [PLACEHOLDERS.get(word, word) for word in match[2].split()])
        for path in (README, COMMANDS, OPERATING, RUNBOOK)
        for match in INLINE.finditer(text(path))
        if match[1] in parsers()
    ]
    assert len(shown) > 40
    for name, options in shown:
        if options:  # without options the text only names the script
            parser().parse_args([name, *filter(None, options)])


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=str)
def test_every_service_that_a_command_names_exists(path: Path) -> None:
    for command in commands(path):
        for name in re.findall(r"\b(?:api|worker)-[a-z]+\b", command):
            assert name in SERVICES, command
