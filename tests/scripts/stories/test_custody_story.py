"""Another checkout and a secret that does not fit are refused before any effect, everywhere."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import custody, fingerprints, ledger, logins, machine, ownership, window
from stack.rules.ownership import Owner
from stack.runner import Result
from stack.stories import check_config, deploy, restore, rollback, up, upgrade_postgres
from stack.stories.deploy import Options

from tests.scripts.conftest import Typed
from tests.scripts.imitation import Host, check_form
from tests.scripts.machine import PLACE, Machine
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import (
    LOGIN,
    have_containers,
    have_volumes,
    make_other_checkout,
    mount_secret,
    refuse_login,
)

Command = Callable[[RecordingRunner, Project], None]
TO = restore.Options(to="2026-11-21T12:30:00+00:00", is_confirmed=True)
PAST = {window.ENDS: "2026-01-01T00:10:00+00:00"}
COMMANDS: dict[str, Command] = {
    "up": lambda runner, project: up.run(runner, project.root),
    "deploy": lambda runner, project: deploy.run(runner, project.root, Options()),
    "rollback": lambda runner, project: rollback.run(runner, project.root, "", 0),
    "restore": lambda runner, project: restore.replace(runner, project, TO),
    "restore beside": lambda runner, project: restore.beside(runner, project, TO),
    "restore discard": lambda runner, project: restore.discard(runner, project, TO),
    "upgrade": lambda runner, project: upgrade_postgres.run(runner, project.root, ""),
}


@pytest.fixture
def up_host(host: Host) -> Host:
    """The host of a deploy, which answers `up.sh` too."""
    for part in ("docker compose version", "docker buildx version"):
        host.reply(part, Result(0, "2.40.3\n"))
    return host


def refused(run: Command, host: Host, project: Project) -> Failure:
    """Return the failure of a command that has had no effect."""
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    entries = len(ledger.entries(project))
    with pytest.raises(Failure) as raised:
        run(host, project)
    check_form(raised.value)
    assert (host.ran, host.written) == ([], [])
    assert len(ledger.entries(project)) == entries, "the ledger may be that of the other checkout"
    after = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    assert after == before
    return raised.value


@pytest.mark.parametrize("name", COMMANDS)
def test_another_checkout_is_refused_by_its_label_and_by_its_record(
    up_host: Host, project: Project, name: str
) -> None:
    other = make_other_checkout(project.root)
    have_containers(up_host, other, "postgres", "redis")
    failed = refused(COMMANDS[name], up_host, project)
    assert failed.runbook == ownership.RUNBOOK
    assert f"another checkout, {other}, owns the project slipway" in failed.observation
    have_containers(up_host, project.root, "postgres")
    owner = Owner(str(other), "slipway", machine.read_id())
    ownership.owner_file(project).write_text(json.dumps(vars(owner)), encoding="utf-8")
    assert str(other) in refused(COMMANDS[name], up_host, project).observation


@pytest.mark.parametrize("name", COMMANDS)
def test_another_machine_and_another_project_are_refused(
    up_host: Host, project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(machine, "read_id", lambda: "1" * 32)
    owner = Owner(str(project.root), "former", "2" * 32)
    ownership.owner_file(project).write_text(json.dumps(vars(owner)), encoding="utf-8")
    have_volumes(up_host, "former_postgres")
    observed = refused(COMMANDS[name], up_host, project).observation
    assert "written on another machine" in observed
    assert "belongs to the project former" in observed


@pytest.mark.parametrize("name", COMMANDS)
def test_a_lost_backup_key_is_refused_with_the_command_that_saves_it(
    up_host: Host, project: Project, name: str
) -> None:
    (project.secrets / "backup_key").unlink()
    have_volumes(up_host)
    have_containers(up_host, project.root, "postgres")
    mount_secret(up_host, "slipway-postgres-1", "backup_key", "the old key")
    failed = refused(COMMANDS[name], up_host, project)
    assert failed.runbook == fingerprints.RUNBOOK
    assert "the volume slipway_backups is here" in failed.observation
    assert "docker exec slipway-postgres-1 cat /run/secrets/backup_key" in failed.hints[1]
    assert fingerprints.IMPORT in failed.hints


@pytest.mark.parametrize("name", ["rollback", "restore", "upgrade"])
def test_a_missing_secret_that_opens_no_data_is_refused_by_its_name(
    up_host: Host, project: Project, name: str
) -> None:
    """Compose starts no service without the file, and would fail in the middle of the command."""
    (project.secrets / "ops_password").unlink()
    failed = refused(COMMANDS[name], up_host, project)
    assert f"{project.secrets / 'ops_password'} is missing" in failed.observation


@pytest.mark.parametrize("name", ["restore", "upgrade"])
def test_containers_that_could_not_start_again_after_a_move_are_not_stopped(
    up_host: Host, project: Project, name: str
) -> None:
    have_containers(up_host, project.root.with_name("gone"), "api-blue", "worker-blue")
    failed = refused(COMMANDS[name], up_host, project)
    assert "api-blue, worker-blue mount files of" in failed.observation
    # Without --apply, up.sh replaces nothing that serves, and the same refusal would come back.
    assert "./scripts/up.sh --apply all, then ./scripts/deploy.sh" in failed.hints


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_a_deploy_and_a_rollback_record_the_end_of_their_window(
    up_host: Host, project: Project, action: str
) -> None:
    COMMANDS[action](up_host, project)
    end = datetime.fromisoformat((ledger.last(project) or {})[window.ENDS])
    assert 590 < (end - datetime.now(UTC)).total_seconds() <= 600


def test_each_command_that_claims_the_stack_ends_a_window_that_nothing_ended(
    host: Host, project: Project
) -> None:
    ledger.record(host, project, "deploy", to="old", result="done", **PAST)
    custody.claim(host, project)
    assert host.has_run("retire green older --after 30")
    assert "    the rollback window is overdue, and ends in 30 s" in host.said
    other = Host(is_dry=True)
    custody.claim(other, project)
    assert not other.has_run("retire")


def test_up_ends_a_window_that_nothing_ended(
    runner: RecordingRunner, checkout: Path, ports: dict[str, int]
) -> None:
    Machine(runner, placed="r-0")
    ledger.record(runner, load(checkout), "deploy", to="r-0", result="done", **PAST)
    up.run(runner, checkout)
    assert runner.has_run("-m stack retire green")
    assert "    the rollback window is overdue, and ends in 30 s" in runner.said


def test_a_second_clone_with_defaults_writes_neither_env_nor_secrets(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ports: dict[str, int]
) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "second state"))
    runner = RecordingRunner()
    Machine(runner)
    other = make_other_checkout(bare)
    have_containers(runner, other, "postgres", "nginx")
    before = sorted(bare.rglob("*"))
    with pytest.raises(Failure, match="another checkout"):
        up.run(runner, bare)
    assert sorted(bare.rglob("*")) == before
    assert (runner.ran, runner.written) == ([], [])


def test_up_records_the_owner_and_each_fingerprint_and_a_second_run_neither(
    runner: RecordingRunner, checkout: Path, ports: dict[str, int]
) -> None:
    Machine(runner)
    up.run(runner, checkout)
    project = load(checkout)
    assert (ownership.read(project) or Owner("", "", "")).checkout == str(checkout)
    names = ("backup_key", "database_password", "redis_admin_password", "redis_password")
    assert sorted(path.name for path in (project.state / "fingerprints").iterdir()) == list(names)
    have_volumes(runner)
    have_containers(runner, checkout, "postgres", "redis", "api-blue")
    runner.written.clear()
    up.run(runner, checkout)
    kept = {ownership.owner_file(project), *(project.state / "fingerprints").iterdir()}
    assert not kept & set(runner.written)


def test_a_preparation_proves_nothing_and_so_keeps_no_fingerprint(
    runner: RecordingRunner, checkout: Path, ports: dict[str, int]
) -> None:
    Machine(runner)
    up.run(runner, checkout, is_prepare=True)
    assert ownership.read(load(checkout)) is not None
    assert not (load(checkout).state / "fingerprints").exists()


def test_a_moved_checkout_is_taken_over_in_words_and_its_stopped_slot_made_anew(
    runner: RecordingRunner, checkout: Path, ports: dict[str, int]
) -> None:
    Machine(runner, placed="r-0")
    project, gone = load(checkout), checkout.with_name("gone")
    project.state.mkdir()
    owner = Owner(str(gone), "slipway", machine.read_id())
    ownership.owner_file(project).write_text(json.dumps(vars(owner)), encoding="utf-8")
    have_containers(runner, gone, "api-blue", "worker-blue", state="exited")
    up.run(runner, checkout)
    assert f"this checkout takes the stack over from {gone}, which is gone" in "\n".join(
        runner.said
    )
    removed = runner.position("docker compose rm --stop --force api-blue worker-blue")
    assert removed < runner.position("api-blue worker-blue counter nginx")
    assert (ownership.read(project) or Owner("", "", "")).checkout == str(checkout)


def test_adopt_is_the_way_in_for_a_machine_and_a_checkout_that_exist(
    runner: RecordingRunner, checkout: Path, ports: dict[str, int], typed: Typed
) -> None:
    Machine(runner)
    other = make_other_checkout(checkout)
    have_containers(runner, other, "api-blue", "worker-blue", "postgres")
    assert typed("up") == 1
    assert not runner.has_run(PLACE)
    assert typed("up", "--adopt") == 0
    assert runner.has_run("docker compose rm --stop --force api-blue worker-blue")
    assert (ownership.read(load(checkout)) or Owner("", "", "")).checkout == str(checkout)


def test_a_first_deploy_on_a_state_of_before_adopts_it_after_the_secrets_have_logged_in(
    host: Host, project: Project
) -> None:
    have_volumes(host)
    have_containers(host, project.root, "postgres", "redis", "api-blue")
    deploy.run(host, project.root, Options())
    assert (ownership.read(project) or Owner("", "", "")).checkout == str(project.root)
    assert fingerprints.read(project, "backup_key")


@pytest.mark.parametrize("name", LOGIN)
def test_a_deploy_is_refused_where_a_server_refuses_a_secret(
    host: Host, project: Project, name: str
) -> None:
    fingerprints.keep(RecordingRunner(), project)  # the file is right, but the server refuses it
    refuse_login(host, name)
    with pytest.raises(Failure, match=f"{name} does not open its data"):
        deploy.run(host, project.root, Options())
    assert host.changes() == []


@pytest.mark.parametrize("name", LOGIN)
def test_check_config_logs_in_with_each_secret(host: Host, project: Project, name: str) -> None:
    assert check_config.run(host, project)
    refuse_login(host, name)
    host.said.clear()
    assert not check_config.run(host, project)
    assert [line for line in host.said if line.startswith("critical")] == [
        f"critical {name.upper()}: {logins.describe(project, name)}; {fingerprints.IMPORT}"
    ]


def test_check_config_names_another_owner_and_a_lost_secret(host: Host, project: Project) -> None:
    other = make_other_checkout(project.root)
    have_containers(host, other, "postgres")
    assert not check_config.run(host, project)
    assert host.said[0].startswith(f"critical owner: another checkout, {other}")
    have_containers(host, project.root, "postgres")
    have_volumes(host)
    (project.secrets / "backup_key").unlink()
    host.reply("/run/secrets/", Result(1))
    host.said.clear()
    assert not check_config.run(host, project)
    lost = [line for line in host.said if line.startswith("critical BACKUP_KEY")]
    assert len(lost) == 1
    assert "the volume slipway_backups is here" in lost[0]
