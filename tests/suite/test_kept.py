"""The effect of a change on a kept stack: none, a copy, a new release, or a new stack."""

import tempfile
from pathlib import Path

import pytest

from tests.stack import harness, kept


def test_the_stack_depends_on_the_product_and_on_no_test_or_page() -> None:
    names = set(kept.sources())
    assert {"api/main.py", "compose.yaml", "scripts/stack/stories/up.py"} <= names
    assert not {name for name in names if name.startswith(("tests/", "docs/"))}
    assert "README.md" not in names


@pytest.mark.parametrize(
    ("name", "is_new_release", "is_new_stack"),
    [
        ("scripts/stack/stories/deploy.py", False, False),
        ("pyproject.toml", False, False),
        ("api/items/service.py", True, False),
        ("requirements.lock", True, False),
        ("Dockerfile", True, False),
        ("compose.yaml", False, True),
        ("nginx/nginx.conf", False, True),
        ("postgres/Dockerfile", False, True),
        ("backup/service.py", False, True),
        (".env.example", False, True),
    ],
)
def test_a_change_renews_what_it_concerns(
    name: str, is_new_release: bool, is_new_stack: bool
) -> None:
    assert kept.is_of_the_image(name) is is_new_release
    assert kept.needs_new_stack({name}) is is_new_stack


def test_two_runs_of_one_project_cannot_remove_each_others_stacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        harness.reserved_project(),
        pytest.raises(RuntimeError, match="SLIPWAY_TEST_PROJECT"),
        harness.reserved_project(),
    ):
        pass
    with harness.reserved_project():
        pass
