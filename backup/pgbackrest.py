"""Calls of pgBackRest and what it knows of its repositories; the entry point has configured it (postgres/)."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backup import offsite, postgres
from backup.commands import Done, Failed, follow, refusals, run

STANZA = "main"
LOCAL, OFFSITE = 1, 2
NAMES = {LOCAL: "of this host", OFFSITE: "off the host"}
SHORT_SECONDS = 120
EXPIRE_SECONDS = 3600


@dataclass(frozen=True)
class Backup:
    """One backup of one repository. Times are those of its begin and end; `wal_*` the segments it needs at least."""

    label: str
    kind: str  # full, diff or incr
    repository: int
    started: datetime
    stopped: datetime
    wal_start: str
    wal_stop: str
    lsn_stop: str
    database_bytes: int
    repository_bytes: int
    archive: str  # the folder of its WAL, as 17-1
    has_error: bool


def call(
    command: str, *words: str, repository: int = LOCAL, seconds: float = SHORT_SECONDS
) -> Done:
    """Run a command of pgBackRest, with options and arguments, on one repository."""
    return run(argv(command, *words, repository=repository), timeout=seconds)


def argv(command: str, *words: str, repository: int = LOCAL) -> list[str]:
    """Return the argument list of a command of pgBackRest."""
    # Off the host: by another configuration, in which that repository is the only one.
    which = [f"--config-include-path={offsite.FOLDER}"] if repository == OFFSITE else []
    return ["pgbackrest", f"--stanza={STANZA}", *which, command, *words]


def create_stanza(repository: int = LOCAL) -> None:
    """Make the archive known to the repository; does nothing where it is.

    Where an upgrade of Postgres was cut off before it told the archive, tell it.

    Raises:
        Failed: where the repository cannot be written, or belongs to another database.
    """
    done, command = call("stanza-create", repository=repository), "stanza-create"
    # The one off the host follows this host's (shipping.py).
    if done.code != 0 and repository == LOCAL and _is_of_the_version_before():
        done, command = call("stanza-upgrade"), "stanza-upgrade"
    if done.code != 0:
        raise Failed(
            f"pgbackrest {command}: {done.reason}", ["docs/runbook.md#archive-not-progressing"]
        )


def _is_of_the_version_before() -> bool:
    """Whether the archive is that of the directory which an upgrade kept beside the server's, by version and id."""
    known = call("info", "--output=json", repository=LOCAL)
    found = json.loads(known.out) if known.code == 0 and known.out.strip() else []
    if not found or not found[0]["db"]:
        return False
    archived = found[0]["db"][-1]
    question = "select current_setting('server_version_num')::int / 10000, current_setting('data_directory')"
    [[version, folder]] = postgres.ask(question)
    control = Path(folder).parent / archived["version"] / "global/pg_control"
    if int(archived["version"].partition(".")[0]) >= int(version) or not control.is_file():
        return False
    # Of every version of Postgres the file begins with the system's identifier, in the machine's order of bytes.
    return int.from_bytes(control.read_bytes()[:8], sys.byteorder) == int(archived["system-id"])


def take(kind: str, say: Callable[[str], None], *, repository: int = LOCAL) -> None:
    """Take a `full` or `incr` backup, and delete none.

    Raises:
        Failed: with what pgBackRest said, or where the database is damaged.
    """
    options = [f"--type={kind}", "--no-expire-auto", "--log-level-console=info"]
    done = follow(argv("backup", *options, repository=repository), say)
    if done.code != 0:
        raise Failed(f"pgbackrest backup: {done.reason}")
    made = backups(repository)[-1]
    if made.has_error:
        # (!) For pgBackRest this is a warning. Backups of a damaged database must not push the good ones out.
        raise Failed(
            f"pages of the database differ from their checksums, and the backup {made.label} holds them as they are",
            ["the older backups are kept: docs/runbook.md#backup-failed-or-too-old"],
        )


def expire(keep_days: int, repository: int = LOCAL) -> None:
    """Delete the backups, and the WAL before them, that no time of the last `keep_days` days needs.

    By time, not by number: several full backups in a row delete nothing that is young.

    Raises:
        Failed: with what pgBackRest said.
    """
    kept = ["--repo1-retention-full-type=time", f"--repo1-retention-full={keep_days}"]
    done = call("expire", *kept, repository=repository, seconds=EXPIRE_SECONDS)
    if done.code != 0:
        raise Failed(f"pgbackrest expire: {done.reason}")


def stanza(repository: int = LOCAL) -> dict[str, Any]:
    """Return what `pgbackrest info` knows of one repository, as it stands.

    Raises:
        Failed: where the repository cannot be read.
    """
    done = call("info", "--output=json", repository=repository)
    found = json.loads(done.out) if done.code == 0 and done.out.strip() else []
    if done.code != 0 or not found:
        raise Failed(f"pgbackrest info: {done.reason}")
    status = found[0]["status"]
    # 0: well; 2: no backup yet. All else, as a missing or broken archive.info, is a fault.
    if status["code"] not in {0, 2}:
        raise Failed(f"the repository {NAMES[repository]} is not well: {fault(found[0])}")
    return dict(found[0])


def fault(known: dict[str, Any]) -> str:
    """Return in one line why `pgbackrest info` could not read a repository."""
    # The repository's own status has the reason; that of all of them says "other". Below the first line are retries, or
    # all of a request and its answer.
    told = [one["status"]["message"] for one in known.get("repo", [])] or [
        known["status"]["message"]
    ]
    return "; ".join(
        line for text in told for line in (text.partition("\n")[0].rstrip(":"), *refusals(text))
    )


def backups(repository: int = LOCAL) -> list[Backup]:
    """Return the backups of a repository, the oldest first.

    Raises:
        Failed: where the repository cannot be read.
    """
    return _backups(stanza(repository), repository)


def backups_of_the_newest() -> list[Backup]:
    """Return the local backups of the database that the archive knows last: an upgrade begins another one.

    Raises:
        Failed: where the repository cannot be read.
    """
    known = stanza()
    return [one for one in _backups(known, LOCAL) if one.archive == str(known["db"][-1]["id"])]


def _backups(known: dict[str, Any], repository: int) -> list[Backup]:
    return [_backup(entry, repository) for entry in known["backup"]]


def _backup(entry: dict[str, Any], repository: int) -> Backup:
    database, info = entry["database"], entry["info"]
    # The archive's folder is named by version and history; only the newest of a database that was upgraded differs.
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
        archive=str(database["id"]),
        has_error=bool(entry.get("error")),
    )
