"""A bundle of another stack replaces no secret on a host that has data."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from stack.commands.command import Command
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project, load
from stack.failure import Failure
from stack.parts import fingerprints
from stack.runner import Result
from stack.stories import export_secrets

from tests.scripts.imitation import furnish
from tests.scripts.recording import RecordingRunner
from tests.scripts.stock import (
    LOGIN,
    have_containers,
    have_volumes,
    mount_secret,
    refuse_login,
    stop_logins,
)

PASSPHRASE = "correct horse battery staple"


@dataclass
class HostWithGpg(RecordingRunner):
    """An engine in memory beside the real gpg."""

    def read(self, command: Command) -> Result:
        return self.files.read(command) if command.argv[0] == "gpg" else super().read(command)


@pytest.fixture
def host() -> HostWithGpg:
    return HostWithGpg()


@pytest.fixture
def bundle(host: HostWithGpg, checkout: Path, tmp_path: Path) -> Path:
    """A bundle of another stack with other secrets."""
    project, file = load(checkout), tmp_path / "bundle.asc"
    project.secrets.mkdir()
    for name in (*SECRETS, *OPTIONAL_SECRETS):
        text = f"{name} of another stack\n" if name in SECRETS else ""
        (project.secrets / name).write_text(text, encoding="utf-8")
    export_secrets.export_bundle(host, project, file, PASSPHRASE, is_overwrite=False)
    host.written.clear()
    return file


@pytest.fixture
def project(bundle: Path, checkout: Path) -> Project:
    """The stack of this host, which has its own secrets and a database."""
    return furnish(checkout)


def run(host: HostWithGpg, project: Project, bundle: Path, *, is_overwrite: bool = True) -> None:
    export_secrets.import_bundle(host, project.root, bundle, PASSPHRASE, is_overwrite=is_overwrite)


def refusal(host: HostWithGpg, project: Project, bundle: Path, **options: bool) -> Failure:
    before = {path: path.read_bytes() for path in project.secrets.iterdir() if path.is_file()}
    with pytest.raises(Failure) as raised:
        run(host, project, bundle, **options)
    assert (host.ran, host.written) == ([], [])
    after = {path: path.read_bytes() for path in project.secrets.iterdir() if path.is_file()}
    assert after == before
    return raised.value


def is_replaced(project: Project) -> bool:
    return "another stack" in (project.secrets / "backup_key").read_text(encoding="utf-8")


def test_without_a_database_the_bundle_replaces_all(
    host: HostWithGpg, project: Project, bundle: Path
) -> None:
    run(host, project, bundle)
    assert is_replaced(project)


def test_beside_a_database_it_is_refused_by_the_fingerprint(
    host: HostWithGpg, project: Project, bundle: Path
) -> None:
    fingerprints.keep(RecordingRunner(), project)
    have_volumes(host)
    stop_logins(host)
    failed = refusal(host, project, bundle)
    assert failed.runbook == fingerprints.RUNBOOK
    assert "(slipway_backups, slipway_postgres, slipway_redis)" in failed.observation
    for name in LOGIN:
        assert name in failed.observation
    assert failed.hints[0] == "nothing was written"


@pytest.mark.parametrize("name", LOGIN)
def test_beside_a_database_it_is_refused_by_its_server(
    host: HostWithGpg, project: Project, bundle: Path, name: str
) -> None:
    have_volumes(host)
    refuse_login(host, name)
    assert f"the bundle's {name} cannot open it" in refusal(host, project, bundle).observation
    host.reply(LOGIN[name], Result(0, "1\n"))
    run(host, project, bundle)
    assert is_replaced(project), "the files of this host were the wrong ones"


def test_beside_a_database_it_is_refused_by_what_a_container_mounts_and_last_by_the_file(
    host: HostWithGpg, project: Project, bundle: Path
) -> None:
    have_volumes(host)
    stop_logins(host)
    assert "backup_key" in refusal(host, project, bundle).observation
    have_containers(host, project.root, "postgres", "redis", state="restarting")
    for name in LOGIN:
        service = "redis" if name.startswith("redis") else "postgres"
        mount_secret(host, f"slipway-{service}-1", name, f"{name} of another stack")
    run(host, project, bundle)
    assert is_replaced(project)


def test_a_missing_secret_is_not_filled_with_one_that_opens_nothing(
    host: HostWithGpg, project: Project, bundle: Path
) -> None:
    fingerprints.keep(RecordingRunner(), project)
    have_volumes(host)
    for name in SECRETS:
        (project.secrets / name).unlink()
    assert "backup_key" in refusal(host, project, bundle, is_overwrite=False).observation
    for name in LOGIN:
        fingerprints.fingerprint_file(project, name).unlink()
    run(host, project, bundle, is_overwrite=False)
    assert is_replaced(project)


def test_an_engine_that_does_not_answer_refuses_and_an_absent_one_has_no_database(
    host: HostWithGpg, project: Project, bundle: Path
) -> None:
    host.reply("docker volume ls", Result(1, err="Cannot connect to the Docker daemon"))
    assert "does not list" in refusal(host, project, bundle).observation
    host.reply("docker volume ls", Result(127, err="docker is not installed"))
    run(host, project, bundle)
    assert is_replaced(project)


def test_a_changed_secret_is_not_packed(host: HostWithGpg, project: Project) -> None:
    fingerprints.keep(RecordingRunner(), project)
    (project.secrets / "backup_key").write_text("made anew by hand\n", encoding="utf-8")
    with pytest.raises(Failure, match=r"backup_key in .* opened none of this stack's data"):
        export_secrets.export_bundle(
            host, project, project.root / "b.asc", PASSPHRASE, is_overwrite=False
        )
    assert not (project.root / "b.asc").exists()
