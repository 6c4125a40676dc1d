"""The backup service reads the settings of the second repository, and the scripts check them."""

from pathlib import Path

import pytest
from stack.config import offsite as scripts

from backup import offsite
from backup.failure import Failure
from backup.offsite import Offsite

PRINT = "SHA256:ARjrj9lNlU0VXKhtx6MA3+5yPegDAod9YXqWxudYew8"
HEX = "0118eb8fd94d954d155ca86dc7a300dfee723de80302877d617a96c6e7587b0f"
SFTP = {
    "OFFSITE_TYPE": "sftp",
    "OFFSITE_HOST": "u1.storage.example",
    "OFFSITE_USER": "u1",
    "OFFSITE_FINGERPRINT": PRINT,
}
S3 = {
    "OFFSITE_TYPE": "s3",
    "OFFSITE_HOST": "s3.example",
    "OFFSITE_USER": "key-id",
    "OFFSITE_BUCKET": "b",
    "OFFSITE_REGION": "r",
}
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "offsite_secret"
    file.write_text(KEY, encoding="utf-8")
    monkeypatch.setattr(offsite, "SECRET", file)
    monkeypatch.setattr(offsite, "AUTHORITY", tmp_path / "offsite_ca")
    return file


def load(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> Offsite | None:
    for key in (*scripts.KEYS, "OFFSITE_TYPE"):
        monkeypatch.setenv(key, values.get(key, ""))
    return offsite.load()


@pytest.mark.usefixtures("secret")
def test_without_a_type_there_is_no_second_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, {}) is None
    with pytest.raises(Failure, match="no repository off the host is known"):
        offsite.require()


@pytest.mark.parametrize(("values", "port"), [(SFTP, 22), (S3, 443)])
@pytest.mark.usefixtures("secret")
def test_the_port_and_the_path_have_defaults(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], port: int
) -> None:
    default = load(monkeypatch, values)
    assert default
    assert (default.port, default.path) == (port, "/slipway")
    custom = load(monkeypatch, {**values, "OFFSITE_PORT": "23", "OFFSITE_PATH": "/a"})
    assert custom
    assert (custom.port, custom.path) == (23, "/a")


@pytest.mark.parametrize("values", [SFTP, S3])
@pytest.mark.usefixtures("secret")
def test_the_service_does_not_start_half_configured(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    for missing in values.keys() - {"OFFSITE_TYPE"}:
        with pytest.raises(Failure, match=f"^{missing} is empty$"):
            load(monkeypatch, {**values, missing: ""})


def test_the_service_does_not_start_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    secret.write_text("\n", encoding="utf-8")
    with pytest.raises(Failure, match="secrets/offsite_secret is empty"):
        load(monkeypatch, SFTP)


def test_a_fingerprint_is_turned_into_the_form_of_pgbackrest() -> None:
    assert offsite.convert_fingerprint(PRINT) == HEX
    assert offsite.convert_fingerprint(PRINT + "=") == HEX
    for wrong in (HEX, PRINT[:-1], "MD5:00:11", ""):
        with pytest.raises(Failure, match="OFFSITE_FINGERPRINT"):
            offsite.convert_fingerprint(wrong)


@pytest.mark.usefixtures("secret")
def test_the_configuration_replaces_the_local_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sftp, s3 = load(monkeypatch, SFTP), load(monkeypatch, S3)
    assert sftp
    assert s3
    text = offsite.pgbackrest_conf(sftp, KEY)
    assert text.startswith("[main]\nrepo1-type=sftp\nrepo1-path=/slipway\n")
    assert f"repo1-sftp-host-fingerprint={HEX}\n" in text
    assert "repo1-sftp-host-key-check-type=fingerprint\n" in text
    assert KEY not in text
    assert "repo1-s3-key-secret=word\n" in offsite.pgbackrest_conf(s3, "word")
    assert "repo2" not in text


def test_an_s3_server_may_have_a_ca_of_its_own(
    monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    s3, file = load(monkeypatch, S3), secret.with_name("offsite_ca")
    assert s3
    file.write_text("\n", encoding="utf-8")
    assert scripts.faults(S3, secret.parent) == []
    assert "ca-file" not in offsite.pgbackrest_conf(s3, "word")
    file.write_text("a password\n", encoding="utf-8")
    assert scripts.faults(S3, secret.parent) == [f"{file} is not a certificate in PEM"]
    file.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    assert scripts.faults(S3, secret.parent) == []
    assert f"repo1-storage-ca-file={file}\n" in offsite.pgbackrest_conf(s3, "word")
    file.chmod(0o600)
    assert "cannot be read by the backup service" in scripts.faults(S3, secret.parent)[0]


def test_the_configuration_is_closed_to_others(
    monkeypatch: pytest.MonkeyPatch, secret: Path, tmp_path: Path
) -> None:
    (tmp_path / "installation.conf").write_text("[global]\nrepo1-cipher-pass=x\n", encoding="utf-8")
    monkeypatch.setattr(offsite, "INSTALLATION", tmp_path / "installation.conf")
    address = load(monkeypatch, SFTP)
    assert address
    offsite.configure(address, tmp_path / "d")
    offsite.configure(address, tmp_path / "d")
    files = sorted((tmp_path / "d").iterdir())
    assert [file.name for file in files] == ["installation.conf", "offsite.conf"]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "d", *files)} == {0}


@pytest.mark.parametrize("values", [{}, SFTP, S3])
def test_a_complete_configuration_is_accepted(secret: Path, values: dict[str, str]) -> None:
    assert scripts.faults(values, secret.parent) == []


@pytest.mark.parametrize("values", [SFTP, S3])
def test_each_key_that_is_missing_is_named_at_once(secret: Path, values: dict[str, str]) -> None:
    faults = scripts.faults({"OFFSITE_TYPE": values["OFFSITE_TYPE"]}, secret.parent)
    assert [text.partition(" ")[0] for text in faults] == [
        key for key in values if key != "OFFSITE_TYPE"
    ]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"OFFSITE_HOST": "a", "OFFSITE_USER": "b"},
            "OFFSITE_TYPE is empty, but OFFSITE_HOST, OFFSITE_USER is set",
        ),
        ({**SFTP, "OFFSITE_TYPE": "ftp"}, "OFFSITE_TYPE is neither sftp nor s3"),
        (
            {**SFTP, "OFFSITE_BUCKET": "b"},
            "OFFSITE_BUCKET is set, but OFFSITE_TYPE=sftp does not use it",
        ),
        (
            {**S3, "OFFSITE_FINGERPRINT": PRINT},
            "OFFSITE_FINGERPRINT is set, but OFFSITE_TYPE=s3 does not use it",
        ),
        ({**S3, "OFFSITE_HOST": "https://s3.example"}, "OFFSITE_HOST is not a host name"),
        ({**SFTP, "OFFSITE_PATH": "backups"}, "OFFSITE_PATH is not the absolute path"),
        ({**SFTP, "OFFSITE_PATH": "/"}, "OFFSITE_PATH is not the absolute path"),
        ({**SFTP, "OFFSITE_FINGERPRINT": HEX}, "OFFSITE_FINGERPRINT is not of the form SHA256:"),
        ({**SFTP, "OFFSITE_PORT": "65536"}, "OFFSITE_PORT is not a port"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    secret: Path, values: dict[str, str], fault: str
) -> None:
    [reason] = scripts.faults(values, secret.parent)
    assert reason.startswith(fault)


def test_a_secret_that_the_service_cannot_read_is_refused(secret: Path) -> None:
    """ssh-keygen creates a file with this mode; the mode of secrets/ protects the file instead."""
    secret.chmod(0o600)
    [reason] = scripts.faults(SFTP, secret.parent)
    assert "cannot be read by the backup service" in reason


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty: put in the private key"),
        ("password\n", "is not a private key"),
        (KEY.replace("BG5vbmU", "CmFlczI"), "is a private key with a passphrase"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
            "is a private key with a passphrase",
        ),
    ],
)
def test_a_secret_that_is_no_usable_key_is_refused(secret: Path, text: str, fault: str) -> None:
    secret.write_text(text, encoding="utf-8")
    [reason] = scripts.faults(SFTP, secret.parent)
    assert fault in reason
