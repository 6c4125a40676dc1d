"""Tests the example's command that registers the first user, and `up.sh` after a killed run."""

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.stack.harness import Stack

pytestmark = pytest.mark.stack
COMMAND = "docker compose run --rm --no-deps --no-TTY api-blue python -m api.users.first_user"


def make_user(stack: Stack, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the command with this text on standard input."""
    file = folder / "credentials.json"
    file.write_text(text, encoding="utf-8")
    return stack.run("sh", "-c", f"{COMMAND} <{file}", check=False)


def test_the_command_may_run_twice_and_knows_another_password(stack: Stack, tmp_path: Path) -> None:
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "a long enough password"}
    for _ in range(2):
        assert make_user(stack, tmp_path, json.dumps(user)).returncode == 0
    with stack.client() as client:
        assert client.post("/v1/users/login", json=user).status_code == 200
    other = make_user(stack, tmp_path, json.dumps({**user, "password": "another long password"}))
    assert other.returncode == 3
    with stack.client() as client:
        assert client.post("/v1/users/login", json=user).status_code == 200


@pytest.mark.parametrize("text", ["", "[]", '{"email": "a@b.example", "password": "hunter2hunt"}'])
def test_credentials_that_cannot_be_used_are_named_and_not_printed(
    stack: Stack, tmp_path: Path, text: str
) -> None:
    done = make_user(stack, tmp_path, text)
    assert done.returncode == 1
    assert "the credentials cannot be used: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_up_finishes_with_the_draft_of_a_run_that_was_killed(stack: Stack) -> None:
    file = stack.root / "secrets/first_user.json"
    draft = file.with_name("first_user.draft.json")
    kept = file.read_text(encoding="utf-8")
    file.rename(draft)  # the state between the registration and the rename
    done = stack.run("./scripts/up.sh")
    assert file.read_text(encoding="utf-8") == kept
    assert not draft.exists()
    assert json.loads(kept)["password"] not in done.stdout + done.stderr
    assert f"first login  {file}" in done.stdout
