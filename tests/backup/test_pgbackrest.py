"""After an upgrade pgBackRest upgrades the archive; another database's archive is an error."""

import json
import sys
from pathlib import Path

import pytest

from backup import pgbackrest, postgres
from backup.failure import Failure
from backup.programs import Result

IDENTIFIER = 7_412_345_678_901_234_567


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Postgres 17 after an upgrade that kept the directory of 15; the archive is still of 15."""
    control = tmp_path / "15/global/pg_control"
    control.parent.mkdir(parents=True)
    control.write_bytes(IDENTIFIER.to_bytes(8, sys.byteorder) + b"rest")
    commands: list[str] = []
    archived = {"id": 1, "repo-key": 1, "system-id": IDENTIFIER, "version": "15"}

    def call(command: str, *_: str, **__: int) -> Result:
        commands.append(command)
        out = json.dumps([{"db": [archived]}]) if command == "info" else ""
        code = 28 if command == "stanza-create" else 0
        return Result(code, out, "ERROR: [028]: do not match", 0)

    monkeypatch.setattr(pgbackrest, "call", call)
    monkeypatch.setattr(postgres, "ask", lambda _: [["17", str(tmp_path / "17")]])
    return commands


def test_an_archive_of_the_version_before_an_upgrade_is_upgraded(
    called: list[str],
) -> None:
    pgbackrest.create_stanza()
    assert called == ["stanza-create", "info", "stanza-upgrade"]


@pytest.mark.parametrize("version", ["15", "14"])
def test_an_archive_of_another_database_stays_an_error(
    called: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(postgres, "ask", lambda _: [[version, str(tmp_path / version)]])
    with pytest.raises(Failure, match="stanza-create: ERROR"):
        pgbackrest.create_stanza()
    assert "stanza-upgrade" not in called


@pytest.mark.parametrize("identifier", [None, IDENTIFIER + 1])
def test_an_archive_of_an_older_version_that_is_not_this_servers_stays_an_error(
    called: list[str], tmp_path: Path, identifier: int | None
) -> None:
    control = tmp_path / "15/global/pg_control"
    if identifier:
        control.write_bytes(identifier.to_bytes(8, sys.byteorder))
    else:
        control.unlink()
    with pytest.raises(Failure, match="stanza-create: ERROR"):
        pgbackrest.create_stanza()
    assert "stanza-upgrade" not in called


def test_a_backup_from_before_an_upgrade_does_not_count_for_the_present_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backup = {
        "label": "X",
        "type": "full",
        "timestamp": {"start": 1, "stop": 2},
        "archive": {"start": "0" * 24, "stop": "0" * 24},
        "lsn": {"stop": "0/0"},
        "info": {"size": 1, "repository": {"delta": 1}},
        "database": {"id": 1},
    }
    databases = [{"id": 1}]
    stanza = {"status": {"code": 0}, "db": databases, "backup": [backup]}
    monkeypatch.setattr(pgbackrest, "call", lambda *_, **__: Result(0, json.dumps([stanza]), "", 0))
    assert [each.label for each in pgbackrest.list_current_backups()] == ["X"]
    databases.append({"id": 2})
    assert pgbackrest.list_current_backups() == []
    assert [each.label for each in pgbackrest.list_backups()] == ["X"]


def test_the_reason_of_an_s3_server_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        "HTTP request failed with 403 (Forbidden):\n*** Path/Query ***:\nGET /b/?list-type=2\n"
        "<Error><Code>SignatureDoesNotMatch</Code><Message>Check your key.</Message>"
        "<StringToSign>X\nY</StringToSign>"
    )
    repository = {"status": {"code": 99, "message": f"[ProtocolError] {message}"}}
    stanza = {"status": {"code": 99, "message": "other"}, "repo": [repository]}
    monkeypatch.setattr(pgbackrest, "call", lambda *_, **__: Result(0, json.dumps([stanza]), "", 0))
    with pytest.raises(Failure) as failed:
        pgbackrest.read_stanza(pgbackrest.OFFSITE)
    reason = "HTTP request failed with 403 (Forbidden); SignatureDoesNotMatch: Check your key."
    assert str(failed.value) == f"the repository off the host is not well: [ProtocolError] {reason}"
    assert (
        Result(39, "", f"P00  ERROR: [039]: {message}\n{message}", 0).reason
        == f"P00  ERROR: [039]: {reason}"
    )
