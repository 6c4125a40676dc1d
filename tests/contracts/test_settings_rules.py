"""The code contains nothing that docs/configuration.md calls impossible."""

import ast
from pathlib import Path

from tests.contracts.tree import nodes

IMAGE = ("api/**/*.py", "worker/**/*.py")


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Return the calls of a function or method of this name in the files of the image."""
    calls = [(path, node) for path, node in nodes(*IMAGE) if isinstance(node, ast.Call)]
    return [
        (path, node) for path, node in calls if ast.unparse(node.func).rpartition(".")[2] == name
    ]


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_no_code_creates_tables_outside_of_a_migration() -> None:
    assert calls("create_all") == []
    makers = {path for path, _ in calls("create_table")}
    assert makers
    assert {path for path in makers if path.parts[:3] != ("api", "migrations", "versions")} == set()


def test_no_code_turns_the_debug_mode_of_the_framework_on() -> None:
    applications = [*calls("FastAPI"), *calls("DescribedAPI"), *calls("Starlette")]
    assert applications
    assert [path for path, call in applications if "debug" in keywords(call)] == []
    assert [
        path
        for path, node in nodes(*IMAGE)
        if isinstance(node, ast.Assign) and "app.debug" in ast.unparse(node)
    ] == []


def test_every_cookie_is_secure() -> None:
    for path, call in calls("set_cookie"):
        given = keywords(call)
        assert (given.get("secure"), given.get("httponly")) == ("True", "True"), (
            f"{path}:{call.lineno}"
        )
        assert given.get("samesite") in {"'lax'", "'strict'"}, f"{path}:{call.lineno}"
