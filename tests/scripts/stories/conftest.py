"""Fixtures of a deploy: a host in memory, and a checkout with a migration to apply."""

from pathlib import Path

import pytest
from stack.config.project import Project

from tests.scripts.imitation import HEAD, Host, furnish

ADD = f'revision = "2026_02_01_0000"\ndown_revision = "{HEAD}"\n'


@pytest.fixture
def no_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Require no free disk or memory, because the test machine may have little of both."""
    monkeypatch.setenv("FREE_DISK_FLOOR_BYTES", "0")
    monkeypatch.setenv("FREE_MEMORY_FLOOR_BYTES", "0")
    monkeypatch.setenv("NOTIFY_COMMAND", "notify me")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def project(no_floors: None, checkout: Path) -> Project:
    (checkout / "api/migrations/versions/2026_02_01_0000_pre_add.py").write_text(
        ADD, encoding="utf-8"
    )
    return furnish(checkout)
