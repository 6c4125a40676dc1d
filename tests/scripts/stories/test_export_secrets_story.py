"""Tests the bundle of `.env` and secrets/ with the real gpg: a host gets all files or none."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project, load
from stack.failure import Failure
from stack.parts import bundle
from stack.runner import RealRunner
from stack.stories import export_secrets

from tests.scripts.conftest import ROOT
from tests.scripts.test_command_line import script

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def project(checkout: Path) -> Project:
    """A checkout with secrets that have the real file modes."""
    found = load(checkout)
    (found.secrets / "tls").mkdir(parents=True)
    for name in (*SECRETS, *OPTIONAL_SECRETS, "first_user.json", "tls/privkey.pem"):
        (found.secrets / name).write_text(f"canary of {name}\n", encoding="utf-8")
        (found.secrets / name).chmod(0o444)
    (found.secrets / "sentry_dsn").chmod(0o644)
    (found.secrets / "sentry_dsn").write_text("", encoding="utf-8")
    return found


@pytest.fixture
def made(project: Project, tmp_path: Path) -> Path:
    file = tmp_path / "bundle.asc"
    export_secrets.export_bundle(RealRunner(), project, file, PASSPHRASE, is_overwrite=False)
    return file


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkout on another host, without `.env` and secrets."""
    root = tmp_path / "other"
    root.mkdir()
    return root


def restore(
    root: Path, file: Path, passphrase: str = PASSPHRASE, *, is_overwrite: bool = False
) -> None:
    export_secrets.import_bundle(RealRunner(), root, file, passphrase, is_overwrite=is_overwrite)


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in [root / ".env", *(root / "secrets").rglob("*")]
        if path.is_file()
    }


def test_a_new_host_gets_every_file_with_its_mode(
    project: Project, made: Path, other: Path
) -> None:
    restore(other, made)
    assert contents(other) == contents(project.root)
    assert (other / "secrets").stat().st_mode & 0o777 == 0o700
    assert (other / "secrets/tls").stat().st_mode & 0o777 == 0o755
    assert made.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in made.read_bytes()


def test_a_wrong_passphrase_writes_nothing(made: Path, other: Path) -> None:
    with pytest.raises(Failure, match="does not open with this passphrase"):
        restore(other, made, PASSPHRASE + "s")
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(("line", "column"), [(3, 5), (20, 5), (-4, -5)])
def test_a_changed_character_writes_nothing_and_shows_no_secret(
    made: Path, other: Path, line: int, column: int
) -> None:
    lines = made.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = list(lines[line].rstrip("=\n"))
    column %= len(changed)  # the last line may be short
    changed[column] = "A" if changed[column] != "A" else "B"
    lines[line] = "".join(changed) + lines[line][len(changed) :]
    made.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(Failure, match=r"is damaged|does not open with this passphrase") as failed:
        restore(other, made)
    assert "canary" not in f"{failed.value}{failed.value.evidence}"
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_cut_file_is_called_damaged(made: Path, other: Path, share: float) -> None:
    whole = made.read_bytes()
    made.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Failure, match="is damaged or no bundle"):
        restore(other, made)
    assert list(other.iterdir()) == []


def test_files_that_differ_are_named_and_kept_until_told_otherwise(
    project: Project, made: Path, other: Path
) -> None:
    restore(other, made)
    key, password = other / "secrets/token_key", other / "secrets/redis_password"
    key.chmod(0o644)
    key.write_text("another", encoding="utf-8")
    password.unlink()
    with pytest.raises(Failure, match=r"other contents than in the bundle: secrets/token_key\n"):
        restore(other, made)
    assert key.read_text(encoding="utf-8") == "another"
    assert not password.exists()
    restore(other, made, is_overwrite=True)
    assert contents(other) == contents(project.root)


def test_a_bundle_lacks_no_secret(project: Project, tmp_path: Path) -> None:
    (project.secrets / "backup_key").unlink()
    (project.secrets / "token_key").chmod(0o644)
    (project.secrets / "token_key").write_text("\n", encoding="utf-8")
    with pytest.raises(Failure, match=r"token_key is empty; .*backup_key is missing"):
        export_secrets.export_bundle(
            RealRunner(), project, tmp_path / "bundle.asc", PASSPHRASE, is_overwrite=False
        )
    assert not (tmp_path / "bundle.asc").exists()


def test_a_bundle_that_is_there_is_replaced_only_when_told(project: Project, made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(Failure, match="exists"):
        export_secrets.export_bundle(RealRunner(), project, made, PASSPHRASE, is_overwrite=False)
    assert made.read_bytes() == before
    export_secrets.export_bundle(RealRunner(), project, made, PASSPHRASE, is_overwrite=True)
    assert made.read_bytes() != before


def test_a_short_passphrase_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="15 characters, fewer than 16"):
        export_secrets.export_bundle(
            RealRunner(), project, tmp_path / "bundle.asc", "x" * 15, is_overwrite=False
        )


def test_the_bundles_own_settings_say_where_its_secrets_are(
    project: Project, made: Path, other: Path
) -> None:
    elsewhere = other / "vault"
    text = (
        (project.root / ".env")
        .read_text(encoding="utf-8")
        .replace("SECRETS_DIR=", f"SECRETS_DIR={elsewhere}")
    )
    (project.root / ".env").write_text(text, encoding="utf-8")
    shutil.copytree(project.secrets, elsewhere)
    export_secrets.export_bundle(
        RealRunner(), load(project.root), made, PASSPHRASE, is_overwrite=True
    )
    shutil.rmtree(elsewhere)
    restore(other, made)
    assert (elsewhere / "backup_key").is_file()


@pytest.mark.parametrize("name", ["secrets/../../evil", "etc/passwd", "/etc/passwd"])
def test_a_bundle_reaches_no_other_place(name: str) -> None:
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(".env"), io.BytesIO())
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match=name):
        bundle._unpack(text.getvalue())


def test_by_command_nothing_secret_is_printed_or_is_an_argument(
    project: Project, tmp_path: Path
) -> None:
    root = project.root
    shutil.copytree(
        ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    # A gpg that records its arguments and then runs the real gpg.
    (root / "bin").mkdir()
    (root / "bin/gpg").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/argv\nexec {shutil.which("gpg")} "$@"\n'
    )
    (root / "bin/gpg").chmod(0o755)
    (tmp_path / "phrase").write_text(f"{PASSPHRASE}\n", encoding="utf-8")
    done = script(
        root, "export-secrets", "--passphrase-file", f"{tmp_path}/phrase", f"{tmp_path}/bundle.asc"
    )
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(project.secrets)
    done = script(
        root,
        "export-secrets",
        "--passphrase-file",
        f"{tmp_path}/phrase",
        "--import",
        f"{tmp_path}/bundle.asc",
    )
    assert (done.returncode, done.stderr) == (0, "")
    argv = (tmp_path / "argv").read_text(encoding="utf-8")
    assert "--symmetric" in argv
    assert "--decrypt" in argv
    for secret in ("canary", PASSPHRASE):
        assert secret not in argv + done.stdout
    assert (project.secrets / "backup_key").is_file()


def test_without_a_terminal_the_passphrase_needs_a_file(project: Project, tmp_path: Path) -> None:
    root = project.root
    shutil.copytree(
        ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    done = script(root, "export-secrets", f"{tmp_path}/bundle.asc")
    assert done.returncode == 1
    assert "HINT: --passphrase-file FILE" in done.stderr
