"""A secret and its data stay together: missing, changed and foreign secrets are refused by name."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from stack.commands import logins as commands
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import fingerprints, inventory, logins
from stack.parts.logins import Outcome
from stack.runner import Result

from tests.scripts.imitation import furnish
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import (
    DATA,
    LOGIN,
    NOT_RUNNING,
    REFUSED,
    have_containers,
    have_volumes,
    mount_secret,
    refuse_login,
    stop_logins,
)

SECRET = "0123456789abcdef"  # as furnish writes it
OTHER = "another secret"
VOLUMES = {
    "database_password": "slipway_postgres",
    "backup_key": "slipway_backups",
    "redis_password": "slipway_redis",
    "redis_admin_password": "slipway_redis",
}
NAMES = list(VOLUMES)


@pytest.fixture
def project(checkout: Path) -> Project:
    return furnish(checkout)


@pytest.fixture
def bound(runner: RecordingRunner, project: Project) -> Project:
    """A stack whose secrets have opened their data."""
    fingerprints.keep(runner, project)
    have_volumes(runner)
    runner.written.clear()
    return project


def change(project: Project, name: str, secret: str = OTHER) -> None:
    (project.secrets / name).chmod(0o600)
    (project.secrets / name).write_text(secret + "\n", encoding="utf-8")


def refusal(runner: RecordingRunner, project: Project) -> Failure:
    with pytest.raises(Failure) as raised:
        fingerprints.refuse_misfits(runner, project, inventory.look(runner))
    assert raised.value.runbook == fingerprints.RUNBOOK
    assert raised.value.hints[0] == "nothing was touched"
    assert (runner.ran, runner.written) == ([], [])
    return raised.value


def accept(runner: RecordingRunner, project: Project) -> None:
    fingerprints.refuse_misfits(runner, project, inventory.look(runner))


def test_every_secret_with_a_login_has_a_command_and_a_refusal() -> None:
    assert set(logins.NAMES) == set(NAMES) == set(commands.REFUSALS) == set(LOGIN)
    for name in NAMES:
        command = commands.log_in(name, "a canary")
        assert command.stdin == "a canary\n"
        assert "canary" not in str(command)
        assert LOGIN[name] in str(command)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Result(0, "1\n"), Outcome.OPENED),
        (None, Outcome.DENIED),
        (NOT_RUNNING, Outcome.NO_ANSWER),
        (Result(124, err="stopped after 30 s"), Outcome.NO_ANSWER),
        (Result(1, err="LOADING Redis is loading"), Outcome.NO_ANSWER),
    ],
)
def test_a_login_opens_is_refused_or_is_not_answered(
    runner: RecordingRunner, name: str, answer: Result | None, outcome: Outcome
) -> None:
    runner.reply(LOGIN[name], answer or REFUSED[name])
    assert logins.log_in(runner, name, SECRET) is outcome


def test_a_key_that_decrypts_to_nonsense_is_refused(runner: RecordingRunner) -> None:
    runner.reply(LOGIN["backup_key"], Result(1))
    assert logins.log_in(runner, "backup_key", SECRET) is Outcome.DENIED
    runner.reply(LOGIN["backup_key"], Result(1, err="ERROR: [055]: unable to open missing file"))
    assert logins.log_in(runner, "backup_key", SECRET) is Outcome.NO_ANSWER


def test_a_fingerprint_is_written_once_closed_to_others_and_holds_no_secret(
    runner: RecordingRunner, project: Project
) -> None:
    fingerprints.keep(runner, project)
    files = [fingerprints.fingerprint_file(project, name) for name in NAMES]
    assert sorted(runner.written) == sorted(files)
    texts = [file.read_text(encoding="ascii") for file in files]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert files[0].parent.stat().st_mode & 0o777 == 0o700
    assert len(set(texts)) == len(NAMES), "the secrets are equal here, and each salt is another"
    assert all(re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{64}\n", text) for text in texts)
    asked = len(runner.asked)
    fingerprints.keep(runner, project)
    assert (len(runner.written), len(runner.asked)) == (len(NAMES), asked), "and nobody is asked"


@pytest.mark.parametrize("name", NAMES)
def test_no_fingerprint_is_written_before_the_secret_has_opened_its_data(
    runner: RecordingRunner, project: Project, name: str
) -> None:
    runner.reply(LOGIN[name], NOT_RUNNING)
    fingerprints.keep(runner, project)
    assert fingerprints.read(project, name) == ""
    refuse_login(runner, name)
    with pytest.raises(Failure, match=f"{name} does not open its data"):
        fingerprints.keep(runner, project)
    assert fingerprints.read(project, name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_secret_whose_volume_exists_is_refused_with_the_container_that_has_it(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    (bound.secrets / name).unlink()
    service = "redis" if name.startswith("redis") else "postgres"
    have_containers(runner, bound.root, service)
    mount_secret(runner, f"slipway-{service}-1", name, SECRET)
    failed = refusal(runner, bound)
    file, new = bound.secrets / name, bound.secrets / ".new"
    assert failed.observation == (
        f"the secret file {file} is missing, and the volume {VOLUMES[name]} is here"
    )
    assert failed.hints[1:] == [
        f"docker exec slipway-{service}-1 cat /run/secrets/{name} >{new} && "
        f"install --mode=0444 {new} {file}; rm --force {new}",
        fingerprints.IMPORT,
    ]


@pytest.mark.parametrize(
    ("docker", "content"), [("echo the secret", "the secret\n"), ("false", None)]
)
def test_the_command_of_a_hint_makes_no_file_where_the_container_has_ended(
    runner: RecordingRunner, bound: Project, tmp_path: Path, docker: str, content: str | None
) -> None:
    file = bound.secrets / "backup_key"
    file.unlink()
    have_containers(runner, bound.root, "postgres")
    mount_secret(runner, "slipway-postgres-1", "backup_key", SECRET)
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n", encoding="utf-8")
    (tmp_path / "docker").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["sh", "-c", refusal(runner, bound).hints[1]]
    subprocess.run(argv, env=variables, check=False, timeout=60)
    assert (file.read_text(encoding="utf-8") if file.exists() else None) == content
    assert not (bound.secrets / ".new").exists()


def test_all_lost_secrets_are_named_at_once_and_the_folder_is_made_first(
    runner: RecordingRunner, project: Project
) -> None:
    for file in (*project.secrets.iterdir(),):
        file.unlink()
    project.secrets.rmdir()
    have_volumes(runner)
    have_containers(runner, project.root, "postgres", "redis", "api-blue")
    runner.reply("/run/secrets/", Result(0, "0" * 64 + "  -\n"))
    failed = refusal(runner, project)
    for name in (*NAMES, "token_key"):
        assert f"{name} is missing" in failed.observation
    assert "ops_password" not in failed.observation, "it opens no data"
    assert failed.hints[1].startswith(f"mkdir --parents --mode=0700 {project.secrets}; docker exec")
    assert failed.hints.count(fingerprints.IMPORT) == 1


def test_without_volume_and_fingerprint_a_secret_is_missing_and_up_makes_it(
    runner: RecordingRunner, project: Project
) -> None:
    for name in (*NAMES, "token_key", "ops_password"):
        (project.secrets / name).unlink()
    accept(runner, project)


@pytest.mark.parametrize("name", NAMES)
def test_a_fingerprint_alone_keeps_a_secret_from_being_made_anew(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    (bound.secrets / name).unlink()
    have_volumes(runner, "slipway_slots")
    assert f"{name} is missing, and this stack had one" in refusal(runner, bound).observation


def test_a_stack_from_before_the_operators_password_gets_one(
    runner: RecordingRunner, project: Project
) -> None:
    (project.secrets / "redis_admin_password").unlink()
    have_volumes(runner)
    have_containers(runner, project.root, "redis")
    stop_logins(runner)
    accept(runner, project)
    mount_secret(runner, "slipway-redis-1", "redis_admin_password", SECRET)
    assert "redis_admin_password is missing" in refusal(runner, project).observation


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_secret_is_refused_with_what_to_do_today(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    change(bound, name)
    failed = refusal(runner, bound)
    assert failed.observation == (
        f"{bound.secrets / name} is not the secret that opens the volume {VOLUMES[name]}"
    )
    file = fingerprints.fingerprint_file(bound, name)
    assert failed.hints[-1] == f"only if its server already has this secret: rm {file}"
    service = "redis" if name.startswith("redis") else "postgres"
    have_containers(runner, bound.root, service)
    mount_secret(runner, f"slipway-{service}-1", name, SECRET)
    assert f"cat /run/secrets/{name} >" in refusal(runner, bound).hints[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_way_out_for_a_changed_secret_asks_its_server(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    change(bound, name)
    fingerprints.fingerprint_file(bound, name).unlink()
    refuse_login(runner, name)
    assert "is not the secret that opens" in refusal(runner, bound).observation
    runner.reply(LOGIN[name], Result(0, "1\n"))
    accept(runner, bound)
    fingerprints.keep(runner, bound)
    assert fingerprints.is_of(fingerprints.read(bound, name), OTHER)


@pytest.mark.parametrize("name", ["token_key", "ops_password"])
def test_a_key_that_opens_no_data_is_replaced_by_a_deploy_as_before(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    change(bound, name)
    accept(runner, bound)


def test_a_missing_token_key_is_refused_because_it_would_end_every_login(
    runner: RecordingRunner, bound: Project
) -> None:
    (bound.secrets / "token_key").unlink()
    assert "token_key is missing, and the volume slipway_postgres is here" in (
        refusal(runner, bound).observation
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_a_fingerprint_a_stopped_server_is_judged_by_what_its_container_mounts(
    runner: RecordingRunner, project: Project, name: str
) -> None:
    have_volumes(runner)
    stop_logins(runner)
    service = "redis" if name.startswith("redis") else "postgres"
    have_containers(runner, project.root, service, state="restarting")
    accept(runner, project)
    mount_secret(runner, f"slipway-{service}-1", name, SECRET)
    accept(runner, project)
    mount_secret(runner, f"slipway-{service}-1", name, "the secret of before")
    assert f"{name} is not the secret that opens" in refusal(runner, project).observation


@pytest.mark.parametrize("name", NAMES)
def test_without_its_volume_another_secret_is_taken_and_gets_the_fingerprint(
    runner: RecordingRunner, bound: Project, name: str
) -> None:
    change(bound, name)
    have_volumes(runner, *(volume for volume in DATA if volume != VOLUMES[name]))
    accept(runner, bound)
    fingerprints.keep(runner, bound)
    assert fingerprints.is_of(fingerprints.read(bound, name), OTHER)


@pytest.mark.parametrize("text", ["", "0" * 32, "zu kurz", "ü"])
def test_a_damaged_fingerprint_is_none_and_is_made_anew_by_a_login(
    runner: RecordingRunner, bound: Project, text: str
) -> None:
    file = fingerprints.fingerprint_file(bound, "backup_key")
    file.write_text(text, encoding="utf-8")
    accept(runner, bound)
    fingerprints.keep(runner, bound)
    assert fingerprints.is_of(fingerprints.read(bound, "backup_key"), SECRET)


def test_a_malformed_secret_is_refused_by_the_rule_before_anything_is_compared(
    runner: RecordingRunner, bound: Project
) -> None:
    change(bound, "redis_password", SECRET + "\r")
    (bound.secrets / "sentry_dsn").unlink()
    (bound.secrets / "sentry_dsn").mkdir()
    failed = refusal(runner, bound)
    assert "redis_password ends in a carriage return" in failed.observation
    assert "sentry_dsn is a directory" in failed.observation


def test_a_server_that_does_not_start_because_of_its_secret_names_the_secret(
    runner: RecordingRunner, project: Project
) -> None:
    refuse_login(runner, "backup_key")
    with (
        pytest.raises(Failure, match="backup_key does not open its data: the backups are not enc"),
        fingerprints.proof(runner, project),
    ):
        raise Failure("backup did not become healthy within 120 s")
    runner.reply(LOGIN["backup_key"], Result(0))
    with (
        pytest.raises(Failure, match="did not become healthy"),
        fingerprints.proof(runner, project),
    ):
        raise Failure("backup did not become healthy within 120 s")
