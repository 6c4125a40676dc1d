"""Missing files are created once; existing files are never changed."""

import os
from pathlib import Path

import pytest
from stack.config import environment
from stack.config.checks import CPU_KEYS
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project
from stack.failure import Failure
from stack.parts.configuration import (
    ensure_certificate,
    ensure_environment,
    ensure_secrets,
    planned_project,
    set_values,
)

from tests.scripts.recording import RecordingRunner


def test_a_first_start_writes_what_it_was_given_into_env(
    runner: RecordingRunner, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_HOST", "a.example")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "two")
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    assert ensure_environment(runner, bare).host == "a.example"
    written = (bare / ".env").read_text(encoding="utf-8").splitlines()
    assert {
        "SLIPWAY_HOST=a.example",
        "COMPOSE_PROJECT_NAME=two",
        f"STATE_DIR={tmp_path / 'state'}",
    } <= set(written)
    assert (bare / ".env").stat().st_mode & 0o777 == 0o600


def test_a_first_start_keeps_what_the_example_of_a_team_says(
    runner: RecordingRunner, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment goes first; STATE_DIR is called after the project unless somebody set it."""
    example = bare / ".env.example"
    given = {"COMPOSE_PROJECT_NAME": "shop", "STATE_DIR": "/srv/shop"}
    example.write_text(
        environment.with_values(example.read_text(encoding="utf-8"), given), encoding="utf-8"
    )
    for key in given:
        monkeypatch.delenv(key, raising=False)
    assert given.items() <= planned_project(bare).values.items()
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "two")
    project = ensure_environment(runner, bare)
    assert (project.name, project.values["STATE_DIR"]) == ("two", "/srv/shop")


def test_a_first_start_without_any_choice_is_called_slipway(
    runner: RecordingRunner, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys are empty in the project's own example."""
    for key in ("COMPOSE_PROJECT_NAME", "STATE_DIR"):
        monkeypatch.delenv(key, raising=False)
    values = ensure_environment(runner, bare).values
    assert values["COMPOSE_PROJECT_NAME"] == "slipway"
    assert values["STATE_DIR"].endswith("/slipway/slipway")


def test_an_env_that_is_there_is_never_overwritten(
    runner: RecordingRunner, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (checkout / ".env").read_bytes()
    monkeypatch.setenv("SLIPWAY_HOST", "other.example")
    ensure_environment(runner, checkout)
    assert (checkout / ".env").read_bytes() == before
    assert runner.written == []


@pytest.mark.parametrize(("cores", "written"), [(1, "1"), (2, ""), (None, "")])
def test_on_a_machine_with_one_core_no_container_is_given_more(
    runner: RecordingRunner,
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int | None,
    written: str,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    project = ensure_environment(runner, bare)
    assert {key: project.values[key] for key in CPU_KEYS} == dict.fromkeys(CPU_KEYS, written)
    lines = environment.parse((bare / ".env").read_text(encoding="utf-8"))
    assert {line.value for line in lines if line.key in CPU_KEYS} == {written}


def test_the_project_is_the_same_before_env_is_made_and_after(
    runner: RecordingRunner, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "two")
    before = planned_project(bare)
    assert not (bare / ".env").exists()
    assert Path(before.values["STATE_DIR"]).name == "two"
    assert ensure_environment(runner, bare) == before == planned_project(bare)


def test_a_dry_run_describes_the_project_and_writes_nothing(bare: Path) -> None:
    runner = RecordingRunner(is_dry=True)
    assert ensure_environment(runner, bare).name == "slipway"
    assert not (bare / ".env").exists()


def test_a_copy_of_the_example_gets_its_state_directory_and_keeps_every_other_line(
    runner: RecordingRunner, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose refuses every command without it: `set STATE_DIR in .env, scripts/up.sh does`."""
    example = (bare / ".env.example").read_text(encoding="utf-8")
    (bare / ".env").write_text(example, encoding="utf-8")
    monkeypatch.setenv("STATE_DIR", "/srv/of-the-shell")
    ensure_environment(runner, bare)
    assert (bare / ".env").read_text(encoding="utf-8") == example, "the shell has it each time"
    monkeypatch.delenv("STATE_DIR")
    project = ensure_environment(runner, bare)
    written = example.replace("\nSTATE_DIR=\n", f"\nSTATE_DIR={project.state}\n")
    assert (bare / ".env").read_text(encoding="utf-8") == written != example


def test_missing_secrets_are_made_strong_and_different(
    runner: RecordingRunner, loaded: Project
) -> None:
    assert ensure_secrets(runner, loaded) == list(SECRETS)
    made = {(loaded.secrets / name).read_text(encoding="utf-8").strip() for name in SECRETS}
    assert len(made) == len(SECRETS)
    assert min(map(len, made)) >= 43  # base64 of 32 random bytes
    assert loaded.secrets.stat().st_mode & 0o777 == 0o700
    assert [(loaded.secrets / name).read_text(encoding="utf-8") for name in OPTIONAL_SECRETS] == [
        ""
    ] * 4


def test_a_secret_that_is_there_is_never_touched(runner: RecordingRunner, loaded: Project) -> None:
    ensure_secrets(runner, loaded)
    kept = loaded.secrets / "token_key"
    (loaded.secrets / "redis_password").unlink()
    os.utime(kept, (1, 1))
    before = kept.read_bytes()
    assert ensure_secrets(runner, loaded) == ["redis_password"]
    assert (kept.read_bytes(), kept.stat().st_mtime) == (before, 1)


def test_an_emptied_console_password_and_a_second_key_stay_as_they_are(
    runner: RecordingRunner, loaded: Project
) -> None:
    ensure_secrets(runner, loaded)
    for name, value in (("ops_password", ""), ("token_key_previous", "an older key\n")):
        (loaded.secrets / name).chmod(0o600)
        (loaded.secrets / name).write_text(value, encoding="utf-8")
    assert ensure_secrets(runner, loaded) == []
    assert (loaded.secrets / "ops_password").read_text(encoding="utf-8") == ""
    assert (loaded.secrets / "token_key_previous").read_text(encoding="utf-8") == "an older key\n"


def test_an_empty_secret_is_refused_and_stays(runner: RecordingRunner, loaded: Project) -> None:
    ensure_secrets(runner, loaded)
    (loaded.secrets / "database_password").chmod(0o600)
    (loaded.secrets / "database_password").write_text("\n", encoding="utf-8")
    with pytest.raises(Failure, match="database_password is empty"):
        ensure_secrets(runner, loaded)
    assert (loaded.secrets / "database_password").read_text(encoding="utf-8") == "\n"


def pair(project: Project) -> tuple[Path, Path]:
    return project.certificate, project.certificate.with_name("privkey.pem")


@pytest.mark.parametrize("present", [0, 1])
def test_half_a_certificate_is_refused_and_stays(
    runner: RecordingRunner, loaded: Project, present: int
) -> None:
    files = pair(loaded)
    files[0].parent.mkdir(parents=True)
    files[present].write_text("mine", encoding="utf-8")
    with pytest.raises(
        Failure, match=f"{files[present].name} exists, but .*{files[1 - present].name} does not"
    ):
        ensure_certificate(runner, loaded)
    assert files[present].read_text(encoding="utf-8") == "mine"
    assert runner.ran == []


def test_a_whole_certificate_is_kept(runner: RecordingRunner, loaded: Project) -> None:
    pair(loaded)[0].parent.mkdir(parents=True)
    for file in pair(loaded):
        file.write_text("mine", encoding="utf-8")
    assert ensure_certificate(runner, loaded) is False
    assert runner.ran == []


def test_a_first_certificate_is_made_without_a_network_for_the_host(
    runner: RecordingRunner, loaded: Project
) -> None:
    assert ensure_certificate(runner, loaded) is True
    (command,) = runner.ran
    assert "--network none" in command
    assert "--env HOST=localhost" in command
    assert f"{loaded.certificate.parent}:/tls" in command


def test_found_values_are_written_where_they_stand_empty(
    runner: RecordingRunner, bare: Path
) -> None:
    (bare / ".env").write_text("# which\nREDIS_IMAGE=\nHTTP_PORT=1\n", encoding="utf-8")
    project = set_values(runner, Project(bare, {"HTTP_PORT": "1"}), {"REDIS_IMAGE": "redis:8.0"})
    assert (bare / ".env").read_text(
        encoding="utf-8"
    ) == "# which\nREDIS_IMAGE=redis:8.0\nHTTP_PORT=1\n"
    assert project.values == {"HTTP_PORT": "1", "REDIS_IMAGE": "redis:8.0"}
