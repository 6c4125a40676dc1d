"""Runs the runbook's copy of lost secrets against a `docker` whose services are up or down."""

import os
import subprocess
from pathlib import Path

import pytest
from stack.config.secret_files import BINDINGS

from tests.contracts.documents import RUNBOOK, fences

(BLOCK,) = [
    block
    for heading, _, block in fences(RUNBOOK)
    if heading == "Secrets and data do not fit" and "/run/secrets/" in block
]
# `docker compose exec --no-TTY SERVICE cat FILE`: a service that is up has each secret, except
# that a service in `odd` ends with 0 and prints nothing.
DOCKER = """#!/bin/sh
case " $UP " in *" $4 "*) ;; *) echo "service $4 is not running" >&2; exit 1 ;; esac
case " $ODD " in *" $4 "*) exit 0 ;; esac
echo "${6##*/} of $4"
"""
ALL_UP = {"postgres", "redis", "api-blue"}


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A checkout whose `up.sh` succeeds, and a `docker` that is first in PATH."""
    for path, text in (("bin/docker", DOCKER), ("scripts/up.sh", "#!/bin/sh\n")):
        file = tmp_path / path
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
    return tmp_path


def copy_secrets(stack: Path, up: set[str], odd: str = "") -> dict[str, str]:
    """Run the block as the tests of the whole stack do; return the content of each secret file."""
    variables = {"PATH": f"{stack / 'bin'}:{os.environ['PATH']}", "UP": " ".join(up), "ODD": odd}
    argv = ["bash", "-euo", "pipefail", "-c", BLOCK]
    subprocess.run(argv, cwd=stack, env=variables, check=True, timeout=60)
    return {file.name: file.read_text("utf-8").strip() for file in (stack / "secrets").iterdir()}


def test_each_secret_that_opens_data_is_copied_from_a_service_that_mounts_it(stack: Path) -> None:
    copied = copy_secrets(stack, ALL_UP)
    assert set(copied) == set(BINDINGS)
    for name, text in copied.items():
        assert text in {f"{name} of {service}" for service in BINDINGS[name].services}
        assert (stack / "secrets" / name).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("down", sorted(ALL_UP))
def test_a_service_that_is_down_leaves_no_file_and_the_next_run_copies_the_secret(
    stack: Path, down: str
) -> None:
    of_down = {name for name, text in copy_secrets(stack, ALL_UP).items() if text.endswith(down)}
    assert of_down
    for name in of_down:
        (stack / "secrets" / name).unlink()
    assert set(copy_secrets(stack, ALL_UP - {down})) == set(BINDINGS) - of_down
    assert set(copy_secrets(stack, ALL_UP)) == set(BINDINGS)


def test_a_copy_without_content_is_no_file_and_an_empty_file_is_replaced(stack: Path) -> None:
    assert set(copy_secrets(stack, {"redis"}, odd="redis")) == set()
    for name in BINDINGS:
        (stack / "secrets" / name).touch(0o444)
    assert all(copy_secrets(stack, ALL_UP).values())


def test_green_has_the_key_of_tokens_while_it_is_live(stack: Path) -> None:
    copied = copy_secrets(stack, ALL_UP - {"api-blue"} | {"api-green"})
    assert copied["token_key"] == "token_key of api-green"


def test_a_file_with_content_is_kept(stack: Path) -> None:
    (stack / "secrets").mkdir()
    (stack / "secrets/backup_key").write_text("of the copy\n", encoding="utf-8")
    assert copy_secrets(stack, ALL_UP)["backup_key"] == "of the copy"
