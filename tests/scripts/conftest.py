"""Each test of the scripts has a checkout of its own, and nothing of the environment of whoever runs it."""

import os
import shutil
from pathlib import Path

import pytest
from stack.config import environment, project

from tests.scripts.recording import RecordingRunner

ROOT = Path(__file__).resolve().parents[2]
BASES = {"PYTHON_IMAGE": "p:1", "NGINX_IMAGE": "n:1", "POSTGRES_IMAGE": "g:1", "REDIS_IMAGE": "r:1"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = environment.known_keys(ROOT / ".env.example")
    for key in [key for key in os.environ if key in known or key.startswith(("DEBIAN_", "PIP_", "GIT_"))]:
        monkeypatch.delenv(key)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """What a release is made of, without `.env` and without git."""
    root = tmp_path / "checkout"
    (root / "api/migrations/versions").mkdir(parents=True)
    shutil.copy(ROOT / ".env.example", root)
    (root / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    (root / "api/main.py").write_text("app = 1\n", encoding="utf-8")
    for name in ("nginx/conf.d/a.conf", "postgres/entrypoint.sh", "redis/redis.conf"):
        file = root / name
        file.parent.mkdir(parents=True)
        file.touch()
        for path, mode in ((file.parent.parent, 0o755), (file.parent, 0o755), (file, 0o755)):
            path.chmod(mode)  # whatever the umask of whoever runs this
    revision = 'revision = "2026_01_01_0000"\ndown_revision = None\n'
    (root / "api/migrations/versions/first.py").write_text(revision, encoding="utf-8")
    return root


@pytest.fixture
def checkout(bare: Path, tmp_path: Path) -> Path:
    """A checkout whose `.env` is filled in."""
    values = {**BASES, "STATE_DIR": str(tmp_path / "state")}
    text = environment.with_values((bare / ".env.example").read_text(encoding="utf-8"), values)
    (bare / ".env").write_text(text, encoding="utf-8")
    return bare


@pytest.fixture
def loaded(checkout: Path) -> project.Project:
    return project.load(checkout)


@pytest.fixture
def runner() -> RecordingRunner:
    return RecordingRunner()
