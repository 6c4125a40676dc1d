"""Each failure has a hint and a runbook entry, and a second failure never hides the first."""

import ast
from pathlib import Path

import pytest
from stack.failure import USAGE, Failure

STACK = Path(__file__).resolve().parents[2] / "scripts/stack"


def failures() -> list[tuple[str, dict[str, ast.expr]]]:
    """Return each place where the scripts create a `Failure`, with the arguments."""
    names = list(Failure.__dataclass_fields__)
    made = []
    for path in sorted(STACK.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Failure":
                given = dict(zip(names, node.args, strict=False))
                given |= {str(word.arg): word.value for word in node.keywords}
                made.append((f"{path.relative_to(STACK)}:{node.lineno}", given))
    return made


def is_usage(given: dict[str, ast.expr]) -> bool:
    return "code" in given and ast.unparse(given["code"]) == "USAGE"


def is_empty(value: ast.expr | None) -> bool:
    return value is None or ast.unparse(value) in {"[]", "''"}


def test_every_failure_has_a_hint() -> None:
    assert [place for place, given in failures() if is_empty(given.get("hints"))] == []


def test_every_failure_but_a_wrong_usage_has_a_runbook_entry() -> None:
    without = [
        place
        for place, given in failures()
        if not is_usage(given) and is_empty(given.get("runbook"))
    ]
    assert without == []
    assert len(failures()) > 80


@pytest.mark.parametrize(
    "second",
    [
        Failure("the engine\ndoes not answer", hints=["start it"], runbook="site-down", code=USAGE),
        OSError("the engine\ndoes not answer"),
    ],
)
def test_a_second_failure_is_one_hint_of_one_line(second: Exception) -> None:
    first = Failure("the watch failed", hints=["look"], runbook="deploy-failed-after-the-switch")
    first.also(second, "undo")
    assert str(first).splitlines() == [
        "error: the watch failed",
        "HINT: look",
        "HINT: undo failed too: the engine; does not answer",
        "RUNBOOK: docs/runbook.md#deploy-failed-after-the-switch",
    ]
    assert first.code == 1


def test_an_interrupted_undo_says_what_stopped_it() -> None:
    failure = Failure("the copy failed")
    failure.also(KeyboardInterrupt(), "undo")
    assert failure.hints == ["undo failed too: stopped by Ctrl-C"]
