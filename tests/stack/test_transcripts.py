"""The two deploys in README.md are real: each block equals the output of the present deploy.sh.

`UPDATE_README=1 ./scripts/test.sh tests/stack/test_transcripts.py` replaces both blocks.
"""

import os
from collections.abc import Iterator

import pytest

from tests.stack import transcript
from tests.stack.crowd import crowd
from tests.stack.documents import README
from tests.stack.harness import Stack, wait_until
from tests.stack.load import Load
from tests.stack.test_deploy import LIST_ITEMS

pytestmark = [pytest.mark.drill, pytest.mark.alone]
WATCH_SECONDS = "10"  # the default; the tests' stack watches for 2 s
RATE = 100  # requests per second; README.md states this number
REQUESTS_FIRST = 100


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    yield
    stack.back_to_blue()


def assert_is_shown(name: str, shown: str) -> None:
    """Compare a run with its block in README.md; with UPDATE_README write the block first."""
    if os.environ.get("UPDATE_README"):
        transcript.write(README, name, shown)
    assert transcript.without_variables(transcript.written(README, name)) == (
        transcript.without_variables(shown)
    )


@pytest.mark.counts_losses
def test_the_readme_shows_a_deploy_as_it_is(stack: Stack) -> None:
    load = Load(stack, rate=RATE)
    with load.running() as report, crowd(stack, "/v1/items?limit=5"):
        wait_until(lambda: report.sent > REQUESTS_FIRST, 30, "the load is under way")
        stack.vary()
        sent = report.sent
        deploy = stack.deploy(WATCH_SECONDS=WATCH_SECONDS)
        meanwhile = report.sent - sent
    assert (report.failures, load.lost_and_doubled()) == ([], (0, 0))
    assert f"{RATE} requests per second" in README.read_text(encoding="utf-8")
    shown = transcript.block(deploy.stdout, deploy.stderr, stack.url)
    assert_is_shown("a deploy", f"{shown}# {meanwhile} requests during this deploy: 0 failed\n")


@pytest.mark.nightly  # the runbook's drills roll bad releases back in every change
def test_the_readme_shows_a_deploy_that_takes_itself_back(stack: Stack) -> None:
    # The smoke test sends no `limit`; the load sends 5, which fails here.
    broken = f'    if limit != 20:\n        raise RuntimeError("broken")\n{LIST_ITEMS}'
    with Load(stack, rate=RATE).running() as report, crowd(stack, "/v1/items?limit=5"):
        wait_until(lambda: report.sent > REQUESTS_FIRST, 30, "the load is under way")
        with stack.edited("api/items/routes.py", LIST_ITEMS, broken):
            deploy = stack.deploy(check=False, WATCH_SECONDS=WATCH_SECONDS)
    assert deploy.returncode == 4
    shown = transcript.from_step(
        transcript.block(deploy.stdout, deploy.stderr, stack.url), "smoke test"
    )
    assert_is_shown("a deploy that takes itself back", f"{shown}# exit code {deploy.returncode}\n")
