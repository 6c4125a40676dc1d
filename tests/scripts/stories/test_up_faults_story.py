"""If a step fails, `up.sh` stops at this step and prints an error with the cause."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from stack.config.project import load
from stack.failure import LOCKED, Failure
from stack.https import Answer, Question
from stack.parts import startup
from stack.parts.lock import exclusive
from stack.rules.findings import UNTOUCHED
from stack.runner import Result
from stack.stories import up

from tests.scripts.conftest import Typed
from tests.scripts.imitation import set_values
from tests.scripts.machine import WAIT, Machine, container, ledger
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import have_containers


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
    assert failed.observation == "worker-blue did not become healthy within 90 s: restarting"
    assert failed.evidence == "worker-blue-1  | the reason\ncontainer is unhealthy"
    assert failed.hints == ["./scripts/logs.sh worker-blue"]
    assert failed.runbook == "a-service-keeps-restarting"
    assert ledger(checkout) == []


@pytest.mark.parametrize(
    ("containers", "named"),
    [
        (
            container("api-blue", health="starting") + container("worker-blue", health="unhealthy"),
            ["worker-blue"],
        ),
        (
            container("api-blue", health="starting") + container("nginx", "created", "starting"),
            ["api-blue", "nginx"],
        ),
        ("", ["api-blue", "worker-blue", "counter", "nginx"]),
    ],
)
def test_of_a_failed_start_the_unhealthy_are_named_before_those_that_only_wait(
    runner: RecordingRunner, machine: Machine, checkout: Path, containers: str, named: list[str]
) -> None:
    runner.reply(
        f"{WAIT} --wait-timeout 90", Result(1, err="one\ntwo\nthree\nno space left on device\n")
    )
    machine.containers = containers
    failed = failure(lambda: up.run(runner, checkout))
    assert failed.evidence.endswith("two\nthree\nno space left on device")
    assert "one" not in failed.evidence.splitlines()
    who, _, seen = failed.observation.partition(" did not become healthy within 90 s: ")
    assert who.split(", ") == named
    assert containers or "no space left" in seen


def test_what_compose_calls_healthy_when_the_time_is_over_is_asked_of_the_engine(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    """Compose 2.26.1 exited with 0 in one of 36 runs, although a container was not healthy."""
    machine.containers = container("api-blue", health="starting") + container("worker-blue")
    failed = failure(lambda: up.run(runner, checkout))
    assert failed.observation == "api-blue did not become healthy within 90 s: running starting"


def test_a_failed_command_prints_evidence_then_the_error_and_last_what_serves(
    runner: RecordingRunner,
    machine: Machine,
    checkout: Path,
    typed: Typed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner.reply(f"{WAIT} --wait-timeout 90", Result(1, err="container is unhealthy"))
    machine.containers = container("api-blue") + container("worker-blue", "restarting", "")
    runner.door = lambda _: Answer(0, error="connection refused")
    assert typed("up") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["worker-blue-1  | the reason", "container is unhealthy"]
    assert lines[2] == "error: worker-blue did not become healthy within 90 s: restarting"
    assert lines[3:] == [
        "HINT: ./scripts/logs.sh worker-blue",
        "RUNBOOK: docs/runbook.md#a-service-keeps-restarting",
        f"live: nothing answers at {load(checkout).url} (connection refused); running: api-blue",
    ]


def test_a_second_one_at_a_time_is_refused_with_the_holder_and_touches_nothing(
    runner: RecordingRunner,
    machine: Machine,
    checkout: Path,
    typed: Typed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with exclusive(RecordingRunner(), load(checkout), "deploy"):
        assert typed("up") == LOCKED == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: another command holds the lock: deploy by ")
    assert lines[-1].startswith("live: nothing answers")
    assert (runner.ran, runner.written) == ([], [])
    assert typed("up") == 0


def test_a_directory_that_cannot_be_made_is_an_error_with_the_path_and_no_traceback(
    machine: Machine,
    checkout: Path,
    typed: Typed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_values(checkout, STATE_DIR=str(checkout / "Dockerfile/state"))
    assert typed("up") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: Not a directory: ")
    assert "Dockerfile/state" in lines[0]
    assert lines[-1].startswith("live: nothing answers")
    assert any(line.startswith("HINT: ") for line in lines)


def test_settings_that_the_release_refuses_stop_before_anything_is_started(
    runner: RecordingRunner, machine: Machine, typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.reply(
        "--no-TTY api-blue python",
        Result(78, "critical ACCESS_TOKEN_MINUTES: too large; set less\n"),
    )
    assert typed("up") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "critical ACCESS_TOKEN_MINUTES: too large; set less",
        "error: the release in slot blue refuses ACCESS_TOKEN_MINUTES; no service was touched",
    ]
    assert "RUNBOOK: docs/runbook.md#boot-refused-by-the-configuration" in lines
    assert not runner.has_run("docker compose up")


@pytest.mark.parametrize("key", ["HTTP_PORT", "HTTPS_PORT"])
def test_a_port_that_something_else_listens_on_is_named_before_compose_is_asked(
    runner: RecordingRunner, machine: Machine, checkout: Path, ports: dict[str, int], key: str
) -> None:
    with socket.create_server(("127.0.0.1", ports[key])):
        failed = failure(lambda: up.run(runner, checkout))
        assert f"port {ports[key]} of 127.0.0.1: Address already in use" in failed.observation
        assert any(f"set {key} in .env" in hint for hint in failed.hints)
        assert failed.hints[-1] == up.WRITTEN, "the secrets are there now"
        assert failure(lambda: up.run(runner, checkout)).hints[-1] == UNTOUCHED
        assert not runner.has_run("docker compose up"), "it is refused before any start"
        machine.containers = container("nginx", ports=tuple(ports.values()))
        up.run(runner, checkout)  # the port belongs to this stack's nginx


@pytest.mark.parametrize("key", ["HTTP_PORT", "HTTPS_PORT"])
def test_a_new_port_that_is_in_use_leaves_the_nginx_that_serves(
    runner: RecordingRunner, machine: Machine, checkout: Path, ports: dict[str, int], key: str
) -> None:
    machine.containers = container("nginx", ports=(1, 2))
    have_containers(runner, checkout, "nginx")
    runner.reply("docker inspect", Result(1))
    with socket.create_server(("127.0.0.1", ports[key])):
        failed = failure(lambda: up.run(runner, checkout, named=("nginx",)))
        assert f"port {ports[key]} of 127.0.0.1: Address already in use" in failed.observation
        assert not runner.has_run("docker compose up")
        up.run(runner, checkout)  # it replaces no nginx, so it needs no port
    assert not any("up --detach" in each and "nginx" in each for each in runner.ran)


def test_a_certificate_that_was_replaced_under_a_running_nginx_is_loaded(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    def answer(question: Question) -> Answer:
        if machine.has_nginx and not runner.has_run("entrypoint.sh reload"):
            return Answer(0, error="certificate verify failed: Hostname mismatch")
        return machine.answer(question)

    runner.door = answer
    up.run(runner, checkout)
    assert runner.has_run("entrypoint.sh reload")


def test_a_certificate_of_another_name_is_refused_before_any_container_is_replaced(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    up.run(runner, checkout)
    former_count = len(runner.ran)
    set_values(checkout, SLIPWAY_HOST="api.example.org")
    answer = "Hostname api.example.org does NOT match certificate\n"
    runner.reply("-checkhost api.example.org", Result(1, answer))
    failed = failure(lambda: up.run(runner, checkout))
    assert failed.observation.endswith("secrets/tls is not for api.example.org")
    assert failed.evidence == answer
    assert not any("docker compose up" in command for command in runner.ran[former_count:])
    assert "api.example.org" not in (load(checkout).state / "slots/blue.env").read_text("utf-8")


def test_a_failed_migration_starts_no_slot(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    runner.reply("--no-TTY migrate", Result(1, err="error: migration blocked for 30 s by pid 7"))
    failed = failure(lambda: up.run(runner, checkout))
    assert "pid 7" in failed.evidence
    assert not runner.has_run(f"{WAIT} --wait-timeout 90 api-blue")


def test_a_front_door_that_answers_with_another_release_is_no_success(
    runner: RecordingRunner, machine: Machine, checkout: Path
) -> None:
    machine.build_is_answered = "r-old"
    failed = failure(lambda: up.run(runner, checkout))
    assert "last answer: HTTP 200 from release 'r-old'" in failed.observation
    assert startup.FRONT_DOOR_SECONDS <= runner.now < startup.FRONT_DOOR_SECONDS + 2
    assert ledger(checkout) == []
