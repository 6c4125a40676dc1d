"""Calls pgBackRest and reads its report on the repositories.

postgres/entrypoint.sh configures it.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backup import offsite, postgres, programs
from backup.failure import Failure
from backup.programs import Result, find_refusals

STANZA = "main"
LOCAL, OFFSITE = 1, 2
NAMES = {LOCAL: "of this host", OFFSITE: "off the host"}
SHORT_SECONDS = 120
EXPIRE_SECONDS = 3600


@dataclass(frozen=True)
class Backup:
    """One backup in one repository.

    Args:
        kind: full, diff or incr.
        started, stopped: when pgBackRest began and ended the backup.
        wal_start, wal_stop: the first and the last segment that every restore of the backup needs.
        database_id: the number of the database in the repository. Its WAL is in the folder
            VERSION-NUMBER, such as 17-1. An upgrade of Postgres begins another number.
    """

    label: str
    kind: str
    repository: int
    started: datetime
    stopped: datetime
    wal_start: str
    wal_stop: str
    lsn_stop: str
    database_bytes: int
    repository_bytes: int
    database_id: str
    has_error: bool


def call(
    command: str, *words: str, repository: int = LOCAL, seconds: float = SHORT_SECONDS
) -> Result:
    """Run a command of pgBackRest, with options and arguments, on one repository."""
    return programs.run(argv(command, *words, repository=repository), timeout=seconds)


def argv(command: str, *words: str, repository: int = LOCAL) -> list[str]:
    """Return the argument list of a command of pgBackRest."""
    # A separate configuration, in which the repository off the host is the only repository.
    include = [f"--config-include-path={offsite.FOLDER}"] if repository == OFFSITE else []
    return ["pgbackrest", f"--stanza={STANZA}", *include, command, *words]


def create_stanza(repository: int = LOCAL) -> None:
    """Register the database with the repository; change nothing if it is registered.

    An upgrade of Postgres that was interrupted may have left the repository at the old version.
    This function then upgrades the stanza.

    Raises:
        Failure: when the repository cannot be written, or belongs to another database.
    """
    command = "stanza-create"
    result = call(command, repository=repository)
    # The stanza off the host follows the local one (shipping.py).
    if result.code != 0 and repository == LOCAL and _is_of_previous_version():
        command = "stanza-upgrade"
        result = call(command)
    if result.code != 0:
        raise Failure(
            f"pgbackrest {command}: {result.reason}", ["docs/runbook.md#archive-not-progressing"]
        )


def _is_of_previous_version() -> bool:
    """Whether the local archive belongs to the directory that an upgrade kept beside the new one.

    The version and the system's identifier must both match.
    """
    result = call("info", "--output=json", repository=LOCAL)
    stanzas = json.loads(result.out) if result.code == 0 and result.out.strip() else []
    if not stanzas or not stanzas[0]["db"]:
        return False
    archived = stanzas[0]["db"][-1]
    [[version, folder]] = postgres.ask(
        "select current_setting('server_version_num')::int / 10000,"
        " current_setting('data_directory')"
    )
    control = Path(folder).parent / archived["version"] / "global/pg_control"
    if int(archived["version"].partition(".")[0]) >= int(version) or not control.is_file():
        return False
    # In every version of Postgres the file begins with the system's identifier, in the machine's
    # byte order.
    return int.from_bytes(control.read_bytes()[:8], sys.byteorder) == int(archived["system-id"])


def take_backup(kind: str, report: Callable[[str], None], *, repository: int = LOCAL) -> None:
    """Take a `full` or `incr` backup, and delete none.

    Raises:
        Failure: with pgBackRest's error, or because the database is damaged.
    """
    options = [f"--type={kind}", "--no-expire-auto", "--log-level-console=info"]
    result = programs.follow(argv("backup", *options, repository=repository), report)
    if result.code != 0:
        raise Failure(f"pgbackrest backup: {result.reason}")
    backup = list_backups(repository)[-1]
    if backup.has_error:
        # (!) pgBackRest only warns here. If the task did not fail, backups of a damaged database
        # would in time replace the good ones.
        raise Failure(
            "pages of the database differ from their checksums, and the backup"
            f" {backup.label} holds them as they are",
            ["the older backups are kept: docs/runbook.md#backup-failed-or-too-old"],
        )


def expire_backups(keep_days: int, repository: int = LOCAL) -> None:
    """Delete the backups and the WAL that no time of the last `keep_days` days needs.

    Retention is by time, not by number: several full backups in a row delete no recent one.

    Raises:
        Failure: with pgBackRest's error.
    """
    retention = ["--repo1-retention-full-type=time", f"--repo1-retention-full={keep_days}"]
    result = call("expire", *retention, repository=repository, seconds=EXPIRE_SECONDS)
    if result.code != 0:
        raise Failure(f"pgbackrest expire: {result.reason}")


def read_stanza(repository: int = LOCAL) -> dict[str, Any]:
    """Return the output of `pgbackrest info` for one repository, unchanged.

    Raises:
        Failure: when the repository cannot be read.
    """
    result = call("info", "--output=json", repository=repository)
    stanzas = json.loads(result.out) if result.code == 0 and result.out.strip() else []
    if result.code != 0 or not stanzas:
        raise Failure(f"pgbackrest info: {result.reason}")
    # 0: healthy; 2: no backup yet. Every other code is a fault, such as a missing archive.info.
    if stanzas[0]["status"]["code"] not in {0, 2}:
        fault = explain_fault(stanzas[0])
        raise Failure(f"the repository {NAMES[repository]} is not well: {fault}")
    return dict(stanzas[0])


def explain_fault(stanza: dict[str, Any]) -> str:
    """Return in one line why `pgbackrest info` cannot read a repository."""
    # Each repository's own status has the reason; the status of the whole stanza says "other".
    # Only the first line is the reason; retries, or a whole request and its answer, follow it.
    messages = [repository["status"]["message"] for repository in stanza.get("repo", [])]
    return "; ".join(
        line
        for message in messages or [stanza["status"]["message"]]
        for line in (message.partition("\n")[0].rstrip(":"), *find_refusals(message))
    )


def list_backups(repository: int = LOCAL) -> list[Backup]:
    """Return the backups of a repository, the oldest first.

    Raises:
        Failure: when the repository cannot be read.
    """
    return _parse_backups(read_stanza(repository), repository)


def list_current_backups() -> list[Backup]:
    """Return the local backups of the newest database: an upgrade of Postgres adds a database.

    Raises:
        Failure: when the repository cannot be read.
    """
    stanza = read_stanza()
    newest = str(stanza["db"][-1]["id"])
    return [backup for backup in _parse_backups(stanza, LOCAL) if backup.database_id == newest]


def _parse_backups(stanza: dict[str, Any], repository: int) -> list[Backup]:
    return [_parse_backup(entry, repository) for entry in stanza["backup"]]


def _parse_backup(entry: dict[str, Any], repository: int) -> Backup:
    info = entry["info"]
    return Backup(
        label=entry["label"],
        kind=entry["type"],
        repository=repository,
        started=datetime.fromtimestamp(entry["timestamp"]["start"], UTC),
        stopped=datetime.fromtimestamp(entry["timestamp"]["stop"], UTC),
        wal_start=entry["archive"]["start"],
        wal_stop=entry["archive"]["stop"],
        lsn_stop=entry["lsn"]["stop"],
        database_bytes=info["size"],
        repository_bytes=info["repository"].get("size", info["repository"]["delta"]),
        database_id=str(entry["database"]["id"]),
        has_error=bool(entry.get("error")),
    )
