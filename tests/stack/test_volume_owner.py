"""An image of another kind is refused; the printed commands change to it and back again."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from stack.config import project

from tests.stack.harness import Stack, wait_until
from tests.stack.settings import edited

pytestmark = pytest.mark.drill
# Imitates the difference between the official image and that of Debian packages.
RECIPE = """
FROM {base}
USER root
RUN groupmod --gid 1999 redis && usermod --uid 1999 --gid 1999 redis
"""
MEND = re.compile(r"^HINT: .*; or, with some seconds of 503: (.*)$", re.MULTILINE)


@pytest.fixture
def other_kind(stack: Stack) -> Iterator[str]:
    """A base image of Redis whose user has another number; the present one serves afterwards."""
    name = f"{stack.project}-redis:another-kind"
    recipe = RECIPE.format(base=project.load(stack.root).base("redis"))
    argv = ["docker", "build", "--quiet", "--tag", name, "-"]
    subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True, timeout=120)
    yield name
    stack.run("docker", "rmi", "--force", name)


def refusal(stack: Stack) -> str:
    """Run up.sh, which must refuse without an effect; return its errors."""
    before = stack.container("redis"), stack.inspect("redis")["State"]["StartedAt"]
    ended = stack.run("./scripts/up.sh", check=False)
    assert ended.returncode == 1, ended.stdout
    assert "REDIS_IMAGE: is of another kind" in ended.stderr
    assert (stack.container("redis"), stack.inspect("redis")["State"]["StartedAt"]) == before
    assert stack.is_serving()
    return ended.stderr


def owner(stack: Stack) -> str:
    listing = stack.compose("exec", "--no-TTY", "redis", "stat", "--format", "%u", "/data")
    return listing.strip()


def test_an_image_of_another_kind_is_refused_and_the_hint_changes_the_owner_and_back(
    stack: Stack, other_kind: str
) -> None:
    former = owner(stack)
    with edited(stack, REDIS_IMAGE=other_kind):
        [mend] = MEND.findall(refusal(stack))
        stack.run("bash", "-euo", "pipefail", "-c", mend)
        assert owner(stack) == "1999"
        wait_until(stack.is_serving, 30, "Redis serves with the other image")
    [mend] = MEND.findall(refusal(stack))
    stack.run("bash", "-euo", "pipefail", "-c", mend)
    assert owner(stack) == former
