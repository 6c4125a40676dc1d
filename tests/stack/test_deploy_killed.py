"""Fault 3: deploy and rollback are killed at each of their commands, and the next command needs no cleaning by hand."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack
from tests.stack.load import Load

pytestmark = pytest.mark.drill


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    yield
    stack.back_to_blue()


def kill_at(stack: Stack, command: list[str], number: int) -> str:
    """Start a command and SIGKILL it when it prints its Nth effect: the one before is done, this one is under way."""
    process = subprocess.Popen(
        command,
        cwd=stack.root,
        env={**stack.environment, "WATCH_SECONDS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    seen = 0
    for line in process.stdout:
        if line.startswith("    $ "):
            seen += 1
            if seen == number:
                process.send_signal(signal.SIGKILL)
                process.wait(10)
                return line.strip()
    process.wait(60)
    return ""


@pytest.mark.parametrize("name", ["deploy", "rollback"])
def test_killed_at_any_command_the_next_one_succeeds(stack: Stack, name: str, figure: Figure) -> None:
    command = [f"./scripts/{name}.sh"]
    load = Load(stack, rate=30)
    table = []
    stack.vary()
    stack.deploy(WATCH_SECONDS="1")
    with load.running() as report:
        number = 0
        while True:
            number += 1
            if name == "deploy":
                stack.vary()
            killed_at = kill_at(stack, command, number)
            if not killed_at:
                break
            follow = stack.deploy(check=False, WATCH_SECONDS="1")
            table.append((number, killed_at[:90], follow.returncode, stack.live()[1]))
            assert follow.returncode == 0, f"after a kill at {killed_at}: {follow.stdout}\n{follow.stderr}"
            release, slot = stack.live()
            assert stack.ledger()[-1]["to"] == release
            running = stack.compose("--profile", "*", "ps", "--status", "running", "--services").split()
            assert f"worker-{slot}" in running, "the live slot has no worker"
    for row in table:
        figure(f"{name} killed at command {row[0]}: {row[1]} -> next deploy {row[2]}")
    figure(f"{name} kill test: {len(table)} kill points, sent {report.sent}, failed {len(report.failures)}")
    assert len(table) >= (6 if name == "deploy" else 3)
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)
