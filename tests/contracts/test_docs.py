"""The documents agree with the code: every anchor, command, link and log action exists."""

import ast
import re
from pathlib import Path

import pytest
from stack import failure

from tests.contracts.documents import (
    CHECKLIST,
    DOCUMENTS,
    README,
    RUNBOOK,
    anchors,
    entries,
    without_fences,
)
from tests.contracts.tree import ROOT, files, lines, nodes, text

SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Verification", "Rollback"]


def failure_anchors() -> set[str]:
    """Return every anchor of the runbook that an error of a script or a process names."""
    constants = {}
    found: set[str] = set()
    for path, node in nodes("scripts/**/*.py"):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            constants[path, ast.unparse(node.targets[0])] = str(node.value.value)
    for path, node in nodes("scripts/**/*.py"):
        if not isinstance(node, ast.keyword) or node.arg != "runbook":
            continue
        if isinstance(node.value, ast.Constant):
            found.add(str(node.value.value))
        else:  # a constant of this or another module
            name = ast.unparse(node.value).rpartition(".")[2]
            values = {value for (_, key), value in constants.items() if key == name}
            own = constants.get((path, name))
            found |= {own} if own else values
    printed = re.compile(r"RUNBOOK: docs/runbook\.md#([\w-]+)")
    for path in files("api/**", "worker/**", "nginx/**", "postgres/**", "redis/**", "scripts/**"):
        found.update(name for line in lines(path) for name in printed.findall(line))
    return found


def test_failures_send_their_reader_somewhere() -> None:
    some = {
        "boot-refused-by-the-configuration",
        "site-down",
        "a-service-keeps-restarting",
        "two-deploys-at-once",
    }
    assert some <= failure_anchors()


def test_every_anchor_that_any_file_names_is_a_heading_of_the_runbook() -> None:
    mentioned = {
        name
        for path in files("**")
        if path.parts[:2] != ("tests", "contracts")
        for line in lines(path)
        for name in re.findall(
            r"(?:docs/)?runbook\.md#([\w-]*\w)(?![\w-]*\()", line
        )  # a name before `(` is a pattern in a test
    }
    assert (mentioned | failure_anchors()) - anchors(RUNBOOK) == set()


def test_every_failure_leads_to_a_whole_entry() -> None:
    assert {name: entries().get(name) for name in failure_anchors()} == dict.fromkeys(
        failure_anchors(), SECTIONS
    )


def test_every_entry_has_the_same_sections_in_the_same_order() -> None:
    incidents = {name: headings for name, headings in entries().items() if headings}
    assert len(incidents) >= 6
    assert incidents == dict.fromkeys(incidents, SECTIONS)


def test_every_entry_is_in_the_index_with_its_symptom_and_its_urgency() -> None:
    row = (
        r"^\| \[[^]]+\]\(#([\w-]+)\) \| [^|]{10,} \| (?:[45]: )?(?:now|today|plan|look up)[^|]*\|$"
    )
    assert re.findall(row, text(RUNBOOK), re.MULTILINE) == list(entries())


def test_every_exit_code_of_the_scripts_is_explained() -> None:
    table = text(RUNBOOK).partition("## Exit codes")[2].partition("\n## ")[0]
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    named = {value for name, value in vars(failure).items() if name.isupper()}
    assert named == {1, 2, 3, 4, 5}
    assert named | {0, 78, 130} <= explained
    assert "reserved" not in table


def actions() -> set[str]:
    """Return every action that the API, the worker and the backup service log."""
    found = set()
    for _, node in nodes("backup/**/*.py"):
        named = node.value if isinstance(node, ast.keyword) and node.arg == "action" else None
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "action":
            named = node.value
        if named:
            found |= {
                n.value
                for n in ast.walk(named)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
    for _, node in nodes("api/**/*.py", "worker/**/*.py"):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "action":
                    found |= {
                        n.value
                        for n in ast.walk(value)
                        if isinstance(n, ast.Constant) and isinstance(n.value, str)
                    }
    return found


def test_every_action_of_the_logs_is_listed_in_the_runbook() -> None:
    assert {"request_served", "export_written", "backup_started", "backup_task_failed"} <= actions()
    listed = set(re.findall(r"`([a-z_]+)`", text(RUNBOOK)))
    assert actions() - listed == set()


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=str
)
def test_every_variable_that_a_document_names_is_in_the_code(path: Path) -> None:
    sources = [file for file in files("**") if file.suffix != ".md"]
    code = {word for file in sources for line in lines(file) for word in re.findall(r"\w+", line)}
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", text(path))) - code == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(text(path))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, name = target.partition("#")
        linked = (ROOT / path.parent / file).resolve() if file else ROOT / path
        assert linked.exists(), f"{path}: {target}"
        if name and linked.suffix == ".md":
            assert name in anchors(linked.relative_to(ROOT)), f"{path}: {target}"


def test_the_readme_counts_the_incidents_and_the_lines_of_the_checklist() -> None:
    incidents = [name for name, headings in entries().items() if headings]
    assert f"{len(incidents)} incidents" in text(README)
    counted = re.search(r"^(\d+) lines: ", text(CHECKLIST), re.M)
    assert counted
    assert f"its {counted[1]} lines" in text(README)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.parts[0] == "docs"], ids=str)
def test_every_path_that_a_page_names_exists(path: Path) -> None:
    tops = {file.parts[0] for file in files("**") if len(file.parts) > 1}
    named = {
        name
        for name in re.findall(r"`([\w.-]+/[\w./-]*)`", without_fences(text(path)))
        if name.partition("/")[0] in tops
    }
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("path", ["README.md", "CHANGELOG.md", "docs/runbook.md"])
def test_the_document_is_there(path: str) -> None:
    assert len(text(path)) > 500


def test_the_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in files("docs/decisions/*.md")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 5


def test_every_decision_is_listed_with_the_architecture() -> None:
    listed = re.findall(r"\]\(decisions/([\w.-]+)\)", text("docs/architecture.md"))
    assert listed == [path.name for path in files("docs/decisions/*.md")]


def test_the_changelog_tells_operators_what_to_do() -> None:
    assert re.search(r"^#+ Operator action$", text("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "docs/configuration.md", str(CHECKLIST)])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    known = {node.name for _, node in nodes("tests/**/*.py") if isinstance(node, ast.FunctionDef)}
    named = set(re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", text(document)))
    assert len(named) >= 8
    assert named - known == set()
    paths = {Path(name) for name in re.findall(r"`(tests/[\w/]+\.py)", text(document))}
    assert paths - set(files("tests/**/*.py")) == set()


def test_the_checklist_counts_its_lines_and_every_line_has_a_proof_or_says_that_it_has_none() -> (
    None
):
    rows = [line.split("|")[1:-1] for line in lines(CHECKLIST) if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() != "requirement"]
    proved = [
        row for row in rows if re.search(r"`(test_\w+|\./scripts/[\w -]+\.sh[\w ]*)`", row[1])
    ]
    missing = [row for row in rows if row[1].strip() == "not yet"]
    assert len(proved) + len(missing) == len(rows)
    tests = set(re.findall(r"`(test_\w+)`", text(CHECKLIST)))
    counted = re.search(
        r"^(\d+) lines: (\d+) with a proof, by (\d+) different tests; (\d+) not yet",
        text(CHECKLIST),
        re.M,
    )
    assert counted
    assert [int(number) for number in counted.groups()] == [
        len(rows),
        len(proved),
        len(tests),
        len(missing),
    ]
    for part in ("Configuration", "API runtime", "Worker"):
        assert "not yet" not in text(CHECKLIST).partition(f"\n## {part}\n")[2].partition("\n## ")[0]
