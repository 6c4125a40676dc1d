"""Variables that name another stack are refused; misleading variables reach no command."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from stack import __main__
from stack.commands.command import Command
from stack.config import surroundings
from stack.config.keys import IDENTITY
from stack.config.project import load
from stack.failure import Failure
from stack.runner import RealRunner

from tests.scripts.conftest import ROOT

FILLED_IN = {"STATE_DIR": "/var/lib/slipway/slipway", "COMPOSE_PROJECT_NAME": "slipway"}


def refusal(written: dict[str, str], **variables: str) -> Failure:
    with pytest.raises(Failure) as raised:
        surroundings.refuse(written, {"DOCKER_CONFIG": "/nonexistent", **variables})
    return raised.value


@pytest.mark.parametrize("key", IDENTITY)
def test_another_stack_than_that_of_the_file_is_refused_by_name_without_the_value(key: str) -> None:
    failed = refusal(FILLED_IN, **{key: "/hunter2"})
    assert failed.observation == f"{key} in the environment is not that of .env"
    assert failed.hints[0].startswith(f"unset {key}")
    assert "hunter2" not in str(failed)


@pytest.mark.parametrize(
    ("written", "variables"),
    [
        (FILLED_IN, FILLED_IN),
        (FILLED_IN, {"COMPOSE_FILE": "compose.yaml", "SLIPWAY_IMAGE": "slipway/app"}),
        (FILLED_IN, {"COMPOSE_PROJECT_NAME": ""}),
        ({"STATE_DIR": ""}, {"STATE_DIR": "/srv/two", "COMPOSE_PROJECT_NAME": "two"}),
    ],
    ids=["the same", "the defaults", "empty", "before the first start"],
)
def test_what_agrees_with_the_file_or_fills_it_in_is_accepted(
    written: dict[str, str], variables: dict[str, str]
) -> None:
    surroundings.refuse(written, {"DOCKER_CONFIG": "/nonexistent", **variables})


@pytest.mark.parametrize(
    "host", ["tcp://192.0.2.7:2376", "ssh://root@a.example", "tcp://a.example"]
)
def test_an_engine_of_another_machine_is_refused(host: str) -> None:
    failed = refusal(FILLED_IN, DOCKER_HOST=host)
    assert failed.observation == "DOCKER_HOST names an engine of another machine"
    assert "unset DOCKER_HOST" in failed.hints[0]


@pytest.mark.parametrize("host", ["unix:///run/user/1000/docker.sock", "tcp://127.0.0.1:2375"])
def test_an_engine_of_this_machine_is_accepted(host: str) -> None:
    surroundings.refuse(FILLED_IN, {"DOCKER_HOST": host, "DOCKER_CONTEXT": "far"})


@pytest.mark.parametrize(
    ("endpoint", "is_refused"),
    [("ssh://a.example", True), ("unix:///run/user/1000/docker.sock", False), ("", True)],
)
@pytest.mark.parametrize("chosen_by", ["variable", "docker context use"])
def test_a_context_counts_by_the_engine_that_it_names(
    tmp_path: Path, endpoint: str, chosen_by: str, *, is_refused: bool
) -> None:
    variables = {"DOCKER_CONFIG": str(tmp_path)}
    if chosen_by == "variable":
        variables["DOCKER_CONTEXT"] = "far"
    else:
        (tmp_path / "config.json").write_text('{"currentContext": "far"}', encoding="utf-8")
    if endpoint:
        folder = tmp_path / "contexts/meta" / hashlib.sha256(b"far").hexdigest()
        folder.mkdir(parents=True)
        meta = {"Name": "far", "Endpoints": {"docker": {"Host": endpoint}}}
        (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    if not is_refused:
        surroundings.refuse(FILLED_IN, variables)
        return
    assert "chooses the context far" in refusal(FILLED_IN, **variables).observation


def test_every_command_refuses_before_any_effect(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "two")
    with pytest.raises(Failure, match="COMPOSE_PROJECT_NAME in the environment is not that of"):
        load(checkout)


def test_what_misleads_a_command_does_not_reach_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {
        *("COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_REMOVE_ORPHANS", "GIT_DIR"),
        *("GIT_WORK_TREE", "PYTHONHOME", "CDPATH", "POSTGRES_TAG", "MIGRATE_TAG"),
    }
    for name in names:
        monkeypatch.setenv(name, "/elsewhere")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    monkeypatch.setattr(__main__, "ROOT", tmp_path)
    monkeypatch.setenv("PWD", str(link))
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("COMPOSE_FILE", "")  # Compose would read the folder as a file
    lines = (
        RealRunner(None, __main__._variables)
        .read(Command(["env"], env={"MIGRATE_TAG": "r-1"}))
        .out.splitlines()
    )
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    assert (names | {"COMPOSE_FILE"}) & given.keys() == {"MIGRATE_TAG"}
    assert (given["MIGRATE_TAG"], given["PWD"], given["KEPT"]) == ("r-1", str(tmp_path), "1")


def test_compose_gets_the_values_of_the_file_and_no_other_command_does(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variable of the shell overrides `.env`, for Compose as for the scripts."""
    file = checkout / ".env"
    text = file.read_text(encoding="utf-8").replace("OPS_USER=\n", "OPS_USER='a$b' # anna\n")
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexec env\n", encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(__main__, "ROOT", checkout)
    runner = RealRunner(None, __main__._variables)
    given = runner.read(Command(["docker", "compose", "ps"])).out.splitlines()
    expected = {"OPS_USER=a$b", "LOG_LEVEL=DEBUG", "PYTHON_IMAGE=p:1"}
    assert expected | {"COMPOSE_PROJECT_NAME=slipway"} <= set(given)
    assert "OPS_USER=a$b" not in runner.read(Command(["docker", "ps"])).out.splitlines()


@pytest.mark.parametrize(
    "script",
    [
        script
        for script in sorted((ROOT / "scripts").glob("*.sh"))
        if "-m stack" in script.read_text(encoding="utf-8")
    ],
    ids=lambda script: script.name,
)
def test_a_script_starts_through_a_link_and_with_a_misleading_shell(
    script: Path, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    link = tmp_path / script.name
    link.symlink_to(script)
    variables = {
        "PATH": os.environ["PATH"],
        "CDPATH": str(tmp_path),
        "PYTHONHOME": "/nonexistent",
    }
    ended = subprocess.run(
        [link, "--help"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"scripts/{script.name}" in ended.stdout
