"""An operator's location answers after a deploy; a mistake in a location changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.harness import Stack

pytestmark = pytest.mark.stack
ANSWER = 'location = /mine {\n    return 200 "mine\\n";\n}\n'


@pytest.fixture
def own(stack: Stack) -> Iterator[Path]:
    """A location file of the operator; removed afterwards."""
    file = stack.root / "nginx/own/mine.conf"
    yield file
    file.unlink(missing_ok=True)


def answers(stack: Stack) -> bool:
    with stack.client() as client:
        answer = client.get("/mine")
    return (answer.status_code, answer.text) == (200, "mine\n")


def test_a_location_of_the_operator_is_served_until_its_file_is_removed(
    stack: Stack, own: Path
) -> None:
    assert not answers(stack), "the folder is empty"
    own.write_text(ANSWER, encoding="utf-8")
    stack.deploy()
    assert answers(stack)
    own.unlink()
    stack.deploy()
    assert not answers(stack)


def test_a_mistake_in_a_location_of_the_operator_changes_nothing(stack: Stack, own: Path) -> None:
    own.write_text(ANSWER.replace("return", "retrun"), encoding="utf-8")
    refused = stack.run("./scripts/deploy.sh", check=False)
    assert refused.returncode == 1
    assert 'unknown directive "retrun"' in refused.stderr + refused.stdout
    assert "RUNBOOK: docs/runbook.md#nginx-refuses-its-configuration" in refused.stderr
    assert stack.is_serving()
