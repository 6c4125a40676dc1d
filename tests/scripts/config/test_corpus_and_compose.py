"""Compose itself reads the accepted texts of the corpus as the scripts do, and not the refused."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.scripts.config import corpus

pytestmark = pytest.mark.docker
FILE = 'services: {s: {image: "none", environment: {A: "${A}"}}}\n'


def compose_reads(folder: Path, text: str) -> str | None:
    """Return the value that a plain `docker compose` reads; None if it refuses the file."""
    (folder / "compose.yaml").write_text(FILE, encoding="utf-8")
    (folder / ".env").write_text(f"A={text}\nB=1\n", encoding="utf-8")
    variables = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    argv = ["docker", "compose", "config", "--format", "json"]
    ended = subprocess.run(
        argv, cwd=folder, env=variables, capture_output=True, text=True, timeout=30, check=False
    )
    if ended.returncode != 0:
        return None
    value = json.loads(ended.stdout)["services"]["s"]["environment"]["A"]
    return str(value).replace("$$", "$")  # as it stands in a compose file


@pytest.mark.parametrize(("text", "value"), corpus.READ)
def test_compose_reads_what_the_scripts_read(tmp_path: Path, text: str, value: str) -> None:
    assert compose_reads(tmp_path, text) == value


def test_compose_reads_many_of_the_refused_texts_in_another_way(tmp_path: Path) -> None:
    """A person expects the value exactly as written, so that any other value is a surprise."""
    differing = [
        text for text, _ in corpus.REFUSED if compose_reads(tmp_path, text) != text.strip("\"'")
    ]
    assert len(differing) > len(corpus.REFUSED) / 2
