"""Faults 3 and 5: deploy and rollback killed at each command, and rollback across migrations."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Figure
from tests.stack.harness import Stack, wait_until, write_revision
from tests.stack.load import Load
from tests.stack.test_migrations import APPLIED, COLUMN, HEAD, ONE, TWO, UNDO

pytestmark = pytest.mark.drill


@pytest.fixture(autouse=True)
def _blue_again(stack: Stack) -> Iterator[None]:
    kept = f"{stack.image}-kept:first"  # because retention removes the release
    stack.run("docker", "tag", f"{stack.image}:{stack.live()[1]}", kept)
    yield
    stack.forget_revisions(UNDO, kept)
    stack.run("docker", "rmi", kept)
    stack.back_to_blue()


def kill_at(stack: Stack, command: list[str], is_next: Callable[[str], bool]) -> str:
    """Kill a script at the first of its commands that is next; return the command, or ""."""
    process = subprocess.Popen(
        command,
        cwd=stack.root,
        env={**stack.environment, "WATCH_SECONDS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("    $ ") and is_next(line.strip()):
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            return line.strip()
    assert process.wait(60) == 0, f"{command} failed before it was killed"
    return ""


def kind_of(line: str) -> str:
    """Return a command without the slots, releases and numbers that differ between attempts."""
    command = line.partition(" --build-arg ")[0]
    return re.sub(r"\b(blue|green|[0-9a-f]*\d[0-9a-f]*)\b", "*", command)


def is_next(part: str, kinds: set[str]) -> Callable[[str], bool]:
    """Return whether a line is the command with this part; without one, of none of the kinds."""
    return lambda line: part in line if part else kind_of(line) not in kinds


def prepare(stack: Stack, name: str) -> None:
    """Make a new release live; leave the slot of a cold rollback's target without its API."""
    stack.vary()
    stack.deploy(WATCH_SECONDS="0")
    if name == "cold rollback":
        idle = {"blue": "green", "green": "blue"}[stack.live()[1]]
        stack.compose("stop", f"api-{idle}")


# A part of each command that changes the database or what serves.
TURNS = {
    "deploy": ("MIGRATE_TAG", " --force-recreate ", "live.sock", " worker-"),
    "warm rollback": ("live.sock", " worker-"),
    "cold rollback": (" api-", "live.sock", " worker-"),
}
FEWEST_COMMANDS = {"deploy": 10, "warm rollback": 4, "cold rollback": 5}
MOST_COMMANDS = 30


@pytest.mark.counts_losses
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("deploy", ("MIGRATE_TAG", "live.sock", " worker-")),
        ("warm rollback", TURNS["warm rollback"]),
        *(pytest.param(name, (), marks=pytest.mark.nightly) for name in TURNS),
    ],
    ids=["deploy", "rollback", *(f"every command of a {name}" for name in TURNS)],
)
def test_killed_at_any_command_the_next_one_succeeds(
    stack: Stack, name: str, parts: tuple[str, ...], figure: Figure
) -> None:
    """Kill at the command with each of the parts; without parts, once at each kind of command."""
    command = [f"./scripts/{name.rsplit(maxsplit=1)[-1]}.sh"]
    load = Load(stack, rate=30)
    killed: list[str] = []
    kinds: set[str] = set()
    is_complete = False
    if name != "deploy":
        # After a kill before the switch both slots may have the new release; a rollback still needs
        # an earlier one.
        prepare(stack, "deploy")
    prepare(stack, name)
    with load.running() as report:
        head = HEAD
        for number in range(len(parts) or MOST_COMMANDS):
            if number and not parts and name != "deploy":
                prepare(stack, name)
            if name == "deploy":  # each deploy has a migration
                revision = f"2099_01_01_00{number:02}"
                body = (
                    f'op.create_table("drill_{number}", sa.Column("id", sa.Integer(), '
                    "primary_key=True))"
                )
                write_revision(stack.root / "api/migrations/versions", revision, head, "pre", body)
                head = revision
            part = parts[number] if parts else ""
            line = kill_at(stack, command, is_next(part, kinds))
            if not line:
                is_complete = True
                break
            killed.append(line)
            kinds.add(kind_of(line))
            follow = stack.deploy(check=False, WATCH_SECONDS="0")
            figure(f"{name} killed at: {line[:180]} -> next deploy {follow.returncode}")
            assert follow.returncode == 0, (
                f"after a kill at {line}: {follow.stdout}\n{follow.stderr}"
            )
            release, slot = stack.live()
            assert stack.ledger()[-1]["to"] == release
            running = stack.compose(
                "--profile", "*", "ps", "--status", "running", "--services"
            ).split()
            assert f"worker-{slot}" in running, "the live slot has no worker"
            assert stack.sql(APPLIED) == head
    figure(
        f"{name} kill test: {len(killed)} kill points, sent {report.sent}, failed "
        f"{len(report.failures)}"
    )
    if parts:
        assert len(killed) == len(parts)
    else:
        assert is_complete
        assert len(killed) >= FEWEST_COMMANDS[name]
        assert [part for part in TURNS[name] if not any(part in line for line in killed)] == []
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)


@pytest.mark.counts_losses
def test_a_rollback_goes_across_pre_migrations_and_is_refused_across_post_ones(
    stack: Stack,
) -> None:
    first = stack.live()
    versions = stack.root / "api/migrations/versions"
    load = Load(stack, rate=30)
    with load.running() as report:
        write_revision(versions, ONE, HEAD, "pre", COLUMN)
        stack.deploy()
        added = stack.live()
        assert stack.sql(APPLIED) == ONE
        stack.run("./scripts/rollback.sh")
        assert stack.live() == first
        assert stack.sql(APPLIED) == ONE
        stack.run("./scripts/rollback.sh", added[0])
        write_revision(versions, TWO, ONE, "post", 'op.drop_column("items", "drill_note")')
        stack.deploy(ROLLBACK_WINDOW_SECONDS="1")
        wait_until(lambda: stack.ledger()[-1]["action"] == "retire", 60, "the rollback window ends")
        assert stack.sql(APPLIED) == TWO
        last = stack.live()
        refused = stack.run("./scripts/rollback.sh", check=False)
        sent = report.sent
        wait_until(lambda: report.sent > sent + 50, 30, "the load goes on")
    assert refused.returncode == 1
    refusal = f"the schema is too new for release {added[0]}: {TWO} removed a part that it needs"
    assert refusal in refused.stderr
    assert "HINT: deploy a corrected release" in refused.stderr
    assert "RUNBOOK: docs/runbook.md#rollback-refused" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(f"live: release {last[0]} in slot {last[1]}")
    assert stack.live() == last
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)
