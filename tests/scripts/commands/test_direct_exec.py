"""A query in a container goes to the engine, and to Compose only if the engine refuses it."""

import os
import shlex
from pathlib import Path

import pytest
from stack.commands import engine
from stack.commands.command import Command
from stack.failure import Failure
from stack.runner import RealRunner

PROJECT = "shop"
# Writes its arguments and its input to a log. The engine refuses the container `gone`.
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>{log}
case "$*" in
  *shop-gone-1*) echo 'Error response from daemon: container 0a1b is not running' >&2; exit 1 ;;
  *" gone "*) echo 'service "gone" is not running' >&2; exit 1 ;;
esac
cat
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that answers with its input; its calls are in this file."""
    log, program = tmp_path / "calls", tmp_path / "docker"
    program.write_text(DOCKER.format(log=shlex.quote(str(log))), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return log


def runner(project: str = PROJECT) -> RealRunner:
    return RealRunner(variables=lambda _: {**os.environ, "COMPOSE_PROJECT_NAME": project})


def test_a_query_asks_the_engine_with_the_same_input(log: Path) -> None:
    result = runner().read(engine.exec_in("redis", "redis-cli", "ping", stdin="secret\n"))
    assert result.out == "secret\n"
    assert log.read_text(encoding="utf-8") == "exec --interactive shop-redis-1 redis-cli ping\n"


def test_what_the_engine_refuses_is_asked_of_compose_which_names_the_service(log: Path) -> None:
    result = runner().read(engine.exec_in("gone", "true", may_fail=True))
    assert result.err == 'service "gone" is not running\n'
    assert log.read_text(encoding="utf-8").splitlines() == [
        "exec --interactive shop-gone-1 true",
        "compose exec --no-TTY gone true",
    ]


def test_an_error_names_the_command_that_a_person_can_type(log: Path) -> None:
    with pytest.raises(Failure, match="`docker compose exec --no-TTY gone true` exited with 1"):
        runner().read(engine.exec_in("gone", "true"))
    assert log.exists()


@pytest.mark.parametrize(
    ("command", "project"),
    [
        (engine.compose("ps", "--all"), PROJECT),
        (Command(["docker", "compose", "exec", "nginx", "true"]), PROJECT),
        (engine.compose("exec", "--no-TTY", "--user", "root", "nginx", "true"), PROJECT),
        (engine.exec_in("nginx", "true"), ""),
    ],
    ids=["another command", "a terminal", "an option", "no project name"],
)
def test_any_other_command_runs_as_it_is(log: Path, command: Command, project: str) -> None:
    runner(project).read(command)
    assert f"docker {log.read_text(encoding='utf-8')}" == f"{command}\n"


def test_a_change_runs_as_it_is_printed(log: Path) -> None:
    runner().run(engine.exec_in("nginx", "mv", "a", "b"))
    assert log.read_text(encoding="utf-8") == "compose exec --no-TTY nginx mv a b\n"
