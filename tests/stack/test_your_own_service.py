"""Follows docs/your-own-service.md in a clone with its own stack."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.documents import blocks
from tests.stack.harness import PROJECT, ROOT, copy_checkout

pytestmark = pytest.mark.drill


def test_the_page_makes_a_service_of_books_that_passes_its_tests(tmp_path: Path) -> None:
    commands = "\n".join(blocks((ROOT / "docs/your-own-service.md").read_text(encoding="utf-8")))
    copy_checkout(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".git/info/exclude").write_text(
        ".venv\n", encoding="utf-8"
    )  # .venv is a link here, and .gitignore ignores only a folder .venv
    # The clone's tests must not inherit the names of this run's worker process and report.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "SLIPWAY_TEST_"))
    }
    environment = {**kept, "SLIPWAY_TEST_PROJECT": f"{PROJECT}-own"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    passed = [int(count) for count in re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)]
    assert len(passed) == 2, done.stdout[-3000:]
    assert passed[0] > 500
    assert passed[1] > 12
    left = subprocess.run(
        ["git", "grep", "-il", "item", "--", "api/books"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert left.stdout.splitlines() in ([], ["api/books/service.py"]), (
        "only `.items()` of a dictionary may remain"
    )
