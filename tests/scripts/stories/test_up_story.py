"""The order of `up.sh`, what it leaves alone when it is run again, and what it says when a step fails."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stack import __main__
from stack.config.project import load
from stack.failure import Failure
from stack.runner import Answer, Question, Result
from stack.stories import up

from tests.scripts.recording import RecordingRunner

PLACE = "docker tag"
WAIT = "docker compose up --detach --no-deps --wait"


def container(service: str, state: str = "running", health: str = "healthy") -> str:
    return json.dumps({"Service": service, "State": state, "Health": health, "Status": state}) + "\n"


class Machine:
    """An engine with base images, and a front door that opens when nginx was started."""

    def __init__(self, runner: RecordingRunner, placed: str = "") -> None:
        self.runner, self.placed, self.users = runner, placed, 0
        self.containers = ""
        self.build_is_answered = ""
        for part in ("docker version", "docker compose version", "docker buildx version"):
            runner.reply(part, Result(0, "2.40.3\n"))
        runner.reply("docker image inspect", Result(0, "sha256:1\n"))
        runner.reply("docker image inspect --format '{{.Id}}' slipway/app:src-", Result(1))
        runner.reply("image.version", lambda: Result(0, self.release + "\n") if self.release else Result(1))
        runner.reply("readlink", Result(0, "blue.sock\n"))
        runner.reply("docker compose ps", lambda: Result(0, self.containers))
        runner.reply("docker compose logs", Result(0, "worker-blue-1  | the reason\n"))
        runner.reply("run --rm --no-deps --no-TTY migrate", Result(0, "migrated: empty -> 2026_01_01_0000\n"))
        runner.door = self.answer

    @property
    def release(self) -> str:
        tags = [command.split()[2] for command in self.runner.ran if command.startswith(PLACE)]
        return tags[-1].partition(":")[2] if tags else self.placed

    def answer(self, question: Question) -> Answer:
        if not self.runner.has_run("worker-blue nginx"):
            return Answer(0, error="connection refused")
        headers = {"X-Slipway-Release": self.build_is_answered or self.release, "X-Slipway-Slot": "blue"}
        if question.method == "POST":
            self.users += 1
            return Answer(201, "{}", headers)
        return Answer(200, "{}", headers)


@pytest.fixture
def machine(runner: RecordingRunner) -> Machine:
    return Machine(runner)


def ledger(root: Path) -> list[dict[str, object]]:
    file = load(root).ledger
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def test_the_database_is_migrated_before_the_slot_starts_and_the_front_door_is_last(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    parts = [
        "--tag slipway/app-nginx",
        "CN=$HOST",
        "--tag slipway/app:",
        PLACE,
        "postgres redis",
        "--no-TTY migrate",
        "api-blue",
    ]
    order = [runner.position(part) for part in parts]
    assert order == sorted(order)
    assert runner.ran[-1] == f"{WAIT} --wait-timeout 90 api-blue worker-blue nginx"
    assert runner.environments[runner.position("--no-TTY migrate")] == {"MIGRATE_TAG": "blue", "MIGRATE_CONFIRM": "yes"}
    assert runner.said[-1] == f"live: release {machine.release} in slot blue, answering at https://localhost:8443"


def test_the_first_user_is_registered_once_and_told_by_file_only(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    file = load(checkout).secrets / "first_user.json"
    user = json.loads(file.read_text(encoding="utf-8"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert user["password"] not in "\n".join(runner.said)
    assert str(file) in "\n".join(runner.said)
    up.run(runner, checkout)
    assert machine.users == 1


def test_running_it_again_builds_places_and_records_nothing(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    assert [(entry["action"], entry["to"], entry["result"]) for entry in ledger(checkout)] == [
        ("up", machine.release, "done")
    ]
    files = {
        path: path.read_bytes() for path in [checkout / ".env", *load(checkout).secrets.glob("*")] if path.is_file()
    }
    times = len(runner.ran), len(ledger(checkout))
    up.run(runner, checkout)
    assert sum(command.startswith(PLACE) for command in runner.ran) == 1
    assert sum("--tag slipway/app:" in command for command in runner.ran[times[0] :]) == 0
    assert len(ledger(checkout)) == times[1]
    assert {path: path.read_bytes() for path in files} == files


def test_a_placed_release_stays_and_the_newer_checkout_is_named(runner: RecordingRunner, checkout: Path) -> None:
    Machine(runner, placed="r-0")
    up.run(runner, checkout)
    assert not runner.has_run("--tag slipway/app:")
    assert not runner.has_run(PLACE)
    assert "which up.sh leaves alone" in "\n".join(runner.said)
    assert "release r-0 in slot blue" in runner.said[-1]


def test_the_slot_that_the_link_names_is_the_one_that_starts(runner: RecordingRunner, checkout: Path) -> None:
    Machine(runner, placed="r-0")
    runner.reply("readlink", Result(0, "green.sock\n"))
    with pytest.raises(Failure, match="front door"):  # the door of this machine opens for blue only
        up.run(runner, checkout)
    assert runner.ran[-1].endswith("api-green worker-green nginx")
    assert runner.environments[runner.position("--no-TTY migrate")]["MIGRATE_TAG"] == "green"


def failure(action: Callable[[], None]) -> Failure:
    with pytest.raises(Failure) as raised:
        action()
    return raised.value


def test_a_service_that_stays_ill_ends_with_its_logs_a_hint_and_what_serves(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    runner.reply(f"{WAIT} --wait-timeout 90", Result(1, err="container is unhealthy"))
    machine.containers = container("api-blue") + container("worker-blue", "restarting", "")
    failed = failure(lambda: up.run(runner, checkout))
    assert "worker-blue is restarting" in failed.observation
    assert "api-blue is" not in failed.observation
    assert failed.evidence == "worker-blue-1  | the reason\n"
    assert failed.hints == ["./scripts/logs.sh worker-blue"]
    assert failed.runbook == "a-service-keeps-restarting"
    assert ledger(checkout) == []


def test_a_failed_command_prints_evidence_then_the_error_and_last_what_serves(
    runner: RecordingRunner, machine: Machine, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.reply(f"{WAIT} --wait-timeout 90", Result(1, err="container is unhealthy"))
    machine.containers = container("api-blue") + container("worker-blue", "restarting", "")
    monkeypatch.setattr(__main__, "RealRunner", lambda: runner)
    monkeypatch.setattr(__main__, "ROOT", checkout)
    monkeypatch.setattr(sys, "argv", ["stack", "up"])
    monkeypatch.setattr(sys, "stderr", errors := io.StringIO())
    runner.door = lambda _: Answer(0, error="connection refused")
    monkeypatch.chdir(checkout)
    assert __main__.main() == 1
    lines = errors.getvalue().splitlines()
    assert lines[0] == "worker-blue-1  | the reason"
    assert lines[1].startswith(
        "error: not all of api-blue, worker-blue, nginx became healthy: worker-blue is restarting"
    )
    assert lines[2:] == [
        "HINT: ./scripts/logs.sh worker-blue",
        "RUNBOOK: docs/runbook.md#a-service-keeps-restarting",
        "live: nothing answers at https://localhost:8443 (connection refused); running: api-blue",
    ]


def test_a_service_that_the_engine_keeps_waiting_with_is_restarted_at_once(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.containers = container("redis", "restarting", "") + container("postgres")
    up.run(runner, checkout)
    assert runner.position("compose restart redis") < runner.position("postgres redis")


def test_a_failed_migration_starts_no_slot(runner: RecordingRunner, machine: Machine, checkout: Path) -> None:
    runner.reply("--no-TTY migrate", Result(1, err="error: migration blocked for 30 s by pid 7"))
    failed = failure(lambda: up.run(runner, checkout))
    assert "pid 7" in failed.evidence
    assert not runner.has_run("api-blue")


def test_a_front_door_that_answers_with_another_release_is_no_success(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.build_is_answered = "r-old"
    failed = failure(lambda: up.run(runner, checkout))
    assert "last answer: HTTP 200 from release 'r-old'" in failed.observation
    assert up.FRONT_DOOR_SECONDS <= runner.now < up.FRONT_DOOR_SECONDS + 2
    assert ledger(checkout) == []


def test_a_dry_run_tells_the_plan_and_leaves_no_file(bare: Path) -> None:
    runner = RecordingRunner(is_dry=True)
    Machine(runner)
    before = sorted(bare.rglob("*"))
    up.run(runner, bare)
    assert sorted(bare.rglob("*")) == before
    assert "nothing was changed" in "\n".join(runner.said)
    assert runner.said[-1].startswith("live: ")
