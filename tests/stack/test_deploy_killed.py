"""Faults 3 and 5: deploy and rollback killed at each command, and rollback across migrations."""

import signal
import subprocess
from collections.abc import Iterator, Sequence

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


def kill_at(stack: Stack, command: list[str], moment: int | str) -> str:
    """Kill a command at its Nth effect, or the first with this text; return its line, or ""."""
    process = subprocess.Popen(
        command,
        cwd=stack.root,
        env={**stack.environment, "WATCH_SECONDS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    seen = 0
    for line in process.stdout:
        if line.startswith("    $ "):
            seen += 1
            if (moment in line) if isinstance(moment, str) else (moment == seen):
                process.send_signal(signal.SIGKILL)
                process.wait(10)
                return line.strip()
    assert process.wait(60) == 0, f"{command} failed by itself before {moment}"
    return ""


# A part of each command that changes the database or what serves. The nightly test kills at every
# command.
TURNS = {
    "deploy": ("MIGRATE_TAG", "live.sock", " worker-"),
    "rollback": ("live.sock", " worker-"),
}
EVERY_COMMAND = tuple(range(1, 30))


@pytest.mark.counts_losses
@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("deploy", TURNS["deploy"]),
        ("rollback", TURNS["rollback"]),
        pytest.param("deploy", EVERY_COMMAND, marks=pytest.mark.nightly),
        pytest.param("rollback", EVERY_COMMAND, marks=pytest.mark.nightly),
    ],
    ids=["deploy", "rollback", "deploy at every command", "rollback at every command"],
)
def test_killed_at_any_command_the_next_one_succeeds(
    stack: Stack, name: str, moments: Sequence[int | str], figure: Figure
) -> None:
    command = [f"./scripts/{name}.sh"]
    load = Load(stack, rate=30)
    table = []
    # Two deploys: after a kill before the switch both slots may have the new release; a rollback
    # still needs an earlier one.
    for _ in range(2):
        stack.vary()
        stack.deploy(WATCH_SECONDS="0")
    with load.running() as report:
        head = HEAD
        for number, moment in enumerate(moments, start=1):
            if name == "deploy":  # each deploy has a migration
                revision = f"2099_01_01_00{number:02}"
                body = (
                    f'op.create_table("drill_{number}", sa.Column("id", sa.Integer(), '
                    "primary_key=True))"
                )
                write_revision(stack.root / "api/migrations/versions", revision, head, "pre", body)
                head = revision
            killed_at = kill_at(stack, command, moment)
            if not killed_at:
                break
            follow = stack.deploy(check=False, WATCH_SECONDS="0")
            table.append((number, killed_at[:180], follow.returncode, stack.live()[1]))
            assert follow.returncode == 0, (
                f"after a kill at {killed_at}: {follow.stdout}\n{follow.stderr}"
            )
            release, slot = stack.live()
            assert stack.ledger()[-1]["to"] == release
            running = stack.compose(
                "--profile", "*", "ps", "--status", "running", "--services"
            ).split()
            assert f"worker-{slot}" in running, "the live slot has no worker"
            assert stack.sql(APPLIED) == head
    for row in table:
        figure(f"{name} killed at: {row[1]} -> next deploy {row[2]}")
    figure(
        f"{name} kill test: {len(table)} kill points, sent {report.sent}, failed "
        f"{len(report.failures)}"
    )
    assert len(table) >= len(TURNS[name])
    assert any("MIGRATE_TAG" in row[1] for row in table) is (name == "deploy")
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
