"""An image has the content that its name states, even if files change during the build."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stack.harness import Stack

pytestmark = pytest.mark.drill
SHOW = "cd /app && find . -type f ! -name '*.pyc' | sort && cat api/main.py"
# Edits a source when the build begins, as an editor that saves at that moment.
WRAPPER = """#!/bin/sh
if [ "$1" = build ]; then printf 'EDITED = 1\\n' >>{root}/api/main.py; fi
exec {docker} "$@"
"""


@pytest.fixture(autouse=True)
def _as_before(stack: Stack) -> Iterator[None]:
    head = stack.run("git", "rev-parse", "HEAD").stdout.strip()
    exclude = stack.root / ".git/info/exclude"
    former = exclude.read_text(encoding="utf-8")
    yield
    exclude.write_text(former, encoding="utf-8")
    stack.run("git", "config", "--unset-all", "status.showUntrackedFiles", check=False)
    stack.run("git", "clean", "--quiet", "--force", "-d", "-x", "--", "api", "worker")
    stack.run("git", "reset", "--quiet", "--hard", head)
    stack.back_to_blue()


def contents(stack: Stack, release: str) -> str:
    """Return the names of the files in the image of a release, and the text of api/main.py."""
    run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh"]
    return stack.run(*run, f"{stack.image}:{release}", "-c", SHOW).stdout


@contextmanager
def umask_077(stack: Stack) -> Iterator[None]:
    """Give the sources the modes of a checkout with this umask while the block runs."""
    closed = [stack.root / "api", stack.root / "worker"]
    paths = [*closed, *(path for folder in closed for path in folder.rglob("*"))]
    former = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(former[path] & 0o700)
    try:
        yield
    finally:
        for path, mode in former.items():
            path.chmod(mode)


def commit(stack: Stack) -> str:
    """Commit a change of the sources; return the name of its release."""
    stack.vary()
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    stack.run(*git, "add", "api/variant.py")
    stack.run(*git, "commit", "--quiet", "--message", "A change")
    return stack.run("git", "rev-parse", "HEAD").stdout[:12]


def test_an_image_of_a_commit_holds_its_files_and_nothing_else(
    stack: Stack, tmp_path: Path
) -> None:
    """Neither an ignored file, a secret, a closed mode nor an edit during the build is in it."""
    release = commit(stack)
    paths = ("api/.env", "api/secrets/k", "worker/tls/key.pem", "api/notes.log")
    for path in paths:
        (stack.root / path).parent.mkdir(exist_ok=True)
        (stack.root / path).write_text("s3cr3t\n", encoding="utf-8")
    with (stack.root / ".git/info/exclude").open("a", encoding="utf-8") as file:
        file.write("*.log\nsecrets/\n.env\n*.pem\n")
    wrapper = tmp_path / "docker"
    docker = shutil.which("docker")
    wrapper.write_text(WRAPPER.format(root=stack.root, docker=docker), encoding="utf-8")
    wrapper.chmod(0o755)
    with umask_077(stack):
        completed = stack.deploy(PATH=f"{tmp_path}:{stack.environment['PATH']}")
    assert stack.live()[0] == release, "it starts, so its files are readable"
    text = contents(stack, release)
    assert "./api/variant.py\n" in text
    assert [path for path in paths if f"./{path}\n" in text] == []
    assert "api/.env" in completed.stdout, "the deploy says what it left out"
    assert "EDITED = 1" in (stack.root / "api/main.py").read_text(encoding="utf-8")
    assert "EDITED = 1" not in text


def test_a_file_that_git_status_hides_is_deployed_and_changes_the_name(stack: Stack) -> None:
    stack.run("git", "config", "status.showUntrackedFiles", "no")
    release = commit(stack)
    stack.deploy()
    assert stack.live()[0] == release
    (stack.root / "api/hidden.py").write_text('"""Hidden."""\n', encoding="utf-8")
    stack.deploy()
    live, _ = stack.live()
    assert live.startswith(f"{release}-")
    assert "api/hidden.py" in contents(stack, live)


def test_an_image_of_that_name_with_other_contents_keeps_it(stack: Stack) -> None:
    """Like an image that an older version built from files which the service's user cannot read."""
    release = commit(stack)
    stack.run("docker", "tag", f"{stack.image}:blue", f"{stack.image}:{release}")
    form = ("--format", "{{.Id}}", f"{stack.image}:{release}")
    former = stack.run("docker", "image", "inspect", *form).stdout
    stack.deploy()
    assert re.fullmatch(f"{release}-[0-9a-f]{{8}}", stack.live()[0])
    assert stack.run("docker", "image", "inspect", *form).stdout == former


@pytest.mark.nightly
def test_two_commits_with_the_same_sources_share_every_layer(stack: Stack) -> None:
    """The copies differ in folder and times; the cache of layers compares contents."""
    layers = []
    for _ in range(2):
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
        stack.run(*git, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
        stack.deploy()
        form = ("--format", "{{json .RootFS.Layers}}", f"{stack.image}:{stack.live()[0]}")
        layers.append(json.loads(stack.run("docker", "image", "inspect", *form).stdout))
    assert layers[0] == layers[1]
