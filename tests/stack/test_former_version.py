"""The first deploy after an update takes over a stack whose deployments have no numbers."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Figure
from tests.stack.harness import PROJECT, ROOT, Stack, listed_files
from tests.stack.load import Load

pytestmark = pytest.mark.drill
COMMIT = "cdf340a"  # the last commit whose ledger names only releases
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")


@pytest.fixture
def former(tmp_path: Path) -> Iterator[Stack]:
    """A separate stack of the former version."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", COMMIT], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.skip(f"the history of this clone does not reach {COMMIT}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path, filter="data")
    made = Stack(tmp_path, project=f"{PROJECT}-former")
    made.run("git", "init", "--quiet")
    commit(made)
    made.remove()
    try:
        made.run("./scripts/up.sh", timeout=900)
        yield made
    finally:
        made.remove()


def commit(stack: Stack) -> None:
    """Commit the checkout, without the state that the tests keep in it."""
    stack.run("git", "add", "--all", "--", ".", ":!state")
    stack.run(*GIT, "commit", "--quiet", "--message", "as copied")


def update(stack: Stack) -> None:
    """Bring the checkout to the present version as `git pull` does, which keeps its folders.

    The containers mount some of these folders: a newly created folder would be empty for them.
    """
    names = listed_files()
    for name in stack.run("git", "ls-files").stdout.splitlines():
        if name not in names:
            (stack.root / name).unlink()
    for name in names:
        (stack.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, stack.root / name)
    commit(stack)


@pytest.mark.counts_losses
def test_a_stack_of_the_former_version_is_taken_over_and_goes_back_across(
    former: Stack, figure: Figure
) -> None:
    first = former.live()
    load = Load(former, rate=20)
    with load.running() as report:
        report.wait_for_answers(50)
        update(former)
        former.vary()
        former.deploy()
        second = former.live()
        assert second[1] != first[1]
        former.run("./scripts/rollback.sh")
        assert former.live() == first
        former.run("./scripts/rollback.sh", second[0])
        assert former.live() == second
        report.wait_for_answers(50)
    figure(f"a former version taken over: sent {report.sent}, failed {len(report.failures)}")
    assert report.failures_besides_reloads() == []
    assert load.lost_and_doubled() == (0, 0)
    entries = former.ledger()
    adopted = next(entry for entry in entries if entry["action"] == "adopt")
    assert [each["release"] for each in adopted["deployments"]] == [first[0]]
    assert [entry["deployment"] for entry in entries if entry["action"] == "rollback"] == [
        *[1, 1],
        *[2, 2],
    ]
