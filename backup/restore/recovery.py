"""Makes a directory with the database as it was: restores a backup there, recovers with a private server, checks."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from backup import pgbackrest, postgres
from backup.commands import TIMED_OUT, Failed, follow, run
from backup.restore.choice import Choice

SOCKET = Path("/tmp/recovery")  # noqa: S108  a tmpfs of this container alone
LOG = SOCKET / "postgres.log"
RECOVERY_SECONDS = 86400.0
START_SECONDS = 60
LOOK_SECONDS = 0.2
STOP_SECONDS = 300
CHECK_SECONDS = (
    6 * 3600
)  # 100 GB at 5 MB/s; partner: MAKE_SECONDS in scripts/stack/parts/restorer.py
# WAL that recovery keeps (max_wal_size in postgres/postgresql.conf), and room to work.
SPARE_BYTES = 512 * 1024**2
PERCENT = re.compile(r"([\d.]+)%\)")
PROGRESS_PERCENT = 20.0
# What a restore writes into postgresql.auto.conf; it must not be there when this database is restored again.
SETTINGS = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_timeline",
    "recovery_target_inclusive",
)
PASSWORD = Path("/run/secrets/database_password")


def check_space(choice: Choice, parent: Path, *, spare_percent: float = 0) -> str:
    """Return how much is free and how much is needed, `spare_percent` of the disk being left over.

    Raises:
        Failed: where the disk has no room for a second copy of the database.
    """
    usage = shutil.disk_usage(parent)
    free, needed = (
        usage.free,
        choice.backup.database_bytes + SPARE_BYTES + int(usage.total * spare_percent / 100),
    )
    if free < needed:
        raise Failed(
            f"the restored copy needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            [
                "docs/runbook.md#disk-full",
                "./scripts/restore.sh --discard-old deletes databases of earlier restores",
            ],
        )
    return f"{needed / 1e9:.1f} GB of {free / 1e9:.1f} GB that are free"


def restore(choice: Choice, folder: Path, say: Callable[[str], None]) -> None:
    """Copy the backup into a new directory; pgBackRest compares each file with its checksum again.

    Raises:
        Failed: with what pgBackRest said.
    """
    folder.mkdir(mode=0o700)
    repository = choice.backup.repository
    fetch = " ".join(
        [
            *pgbackrest.argv("archive-get", f"--pg1-path={folder}", repository=repository),
            "%f",
            '"%p"',
        ]
    )
    options = [
        f"--pg1-path={folder}",
        f"--set={choice.backup.label}",
        f"--type={choice.kind}",
        *([f"--target={choice.value}"] if choice.value else []),
        "--target-action=promote",
        f"--target-timeline={choice.timeline}",
        f"--recovery-option=restore_command={fetch}",
        "--process-max=2",
        "--job-retry=0",
        "--log-level-console=detail",
    ]
    reached = 0.0

    def progress(line: str) -> None:
        nonlocal reached
        found = PERCENT.search(line)
        if found and float(found[1]) >= reached + PROGRESS_PERCENT:
            reached = float(found[1])
            say(f"{reached:.0f} %")

    done = follow(pgbackrest.argv("restore", *options, repository=repository), progress)
    if done.code != 0:
        raise Failed(f"the backup {choice.backup.label} cannot be restored: {done.reason}")


def recover(folder: Path) -> str:
    """Recover to the target with a server that nobody else can reach, and return the line that says where it ended.

    The archive stays as it is: the command is empty, so that the new timeline's files wait for the real server.

    Raises:
        Failed: where the target was not reached; a server without an explicit target would have come up instead.
    """
    SOCKET.mkdir(mode=0o700, exist_ok=True)
    LOG.unlink(missing_ok=True)
    options = {
        "config_file": "/etc/slipway/postgresql.conf",
        "listen_addresses": "",
        "unix_socket_directories": str(SOCKET),
        "archive_mode": "on",
        "archive_command": "",
        "log_min_duration_statement": "-1",  # a password that is set may not be told
        "log_min_error_statement": "panic",
        "hot_standby": "off",  # so that it can be connected to when it has reached its target, and not before
    }
    words = " ".join(f"-c {key}='{value}'" for key, value in options.items())
    start = [
        "pg_ctl",
        "start",
        f"--pgdata={folder}",
        f"--log={LOG}",
        "--wait",
        f"--options={words}",
    ]
    done = run(start, timeout=2 * START_SECONDS)
    is_up = done.code == 0 and _comes_up(folder)
    log = LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else ""
    reached = re.findall(r"recovery stopping .*|consistent recovery state reached .*", log)
    if not is_up or not reached:
        stop(folder)
        fatal = re.findall(r"(?:FATAL|PANIC): +(.*)", log)
        raise Failed(
            f"recovery failed: {'; '.join(fatal[-2:]) or done.reason}", log.splitlines()[-3:]
        )
    return str(reached[-1])


def _comes_up(folder: Path) -> bool:
    """Wait until the server takes writes; without a hot standby, pg_ctl's own wait ends with recovery's begin."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        try:
            if postgres.ask("select pg_is_in_recovery()", socket=str(SOCKET)) == [["f"]]:
                return True
        except Failed:  # not yet, or not any more
            if run(["pg_ctl", "status", f"--pgdata={folder}"], timeout=START_SECONDS).code != 0:
                return False
        time.sleep(LOOK_SECONDS)
    return False


def check(folder: Path) -> str:
    """Check the recovered database, take over the present password, and stop the server.

    Raises:
        Failed: with the first lines of what is corrupt.
    """
    try:
        for setting in SETTINGS:
            postgres.ask(f"alter system reset {setting}", socket=str(SOCKET))
        text = PASSWORD.read_text(encoding="utf-8").rstrip("\n").replace("'", "''")
        # Without `log_statement` it is in no log; the secret may be newer than the backup.
        postgres.ask(f"alter role slipway password '{text}'", socket=str(SOCKET))
        return check_tables()
    finally:
        stop(folder)


def check_tables() -> str:
    """Check every table and index of the recovered database with amcheck.

    Raises:
        Failed: with the first lines of what is corrupt.
    """
    names = [
        row[0]
        for row in postgres.ask(
            "select datname from pg_database where datallowconn", socket=str(SOCKET)
        )
    ]
    lacking = [name for name in names if not _has_amcheck(name)]
    place = [f"--host={SOCKET}", "--username=postgres"]
    done = run(
        ["pg_amcheck", *place, "--all", "--install-missing", "--jobs=2"], timeout=CHECK_SECONDS
    )
    if done.code == TIMED_OUT:
        raise Failed(
            f"the restored database could not be checked within {CHECK_SECONDS} s",
            ["a faster disk, or more"],
        )
    if done.code != 0:
        raise Failed(f"the restored database is corrupt: {done.reason}")
    for name in lacking:
        postgres.ask(
            "set client_min_messages = error; drop extension amcheck",
            database=name,
            socket=str(SOCKET),
        )
    return f"{len(names)} databases are sound"


def _has_amcheck(name: str) -> bool:
    query = "select 1 from pg_extension where extname = 'amcheck'"
    return bool(postgres.ask(query, database=name, socket=str(SOCKET)))


def stop(folder: Path) -> None:
    """Stop the private server where it runs."""
    words = ["--mode=fast", "--wait", f"--timeout={STOP_SECONDS}"]
    run(["pg_ctl", "stop", f"--pgdata={folder}", *words], timeout=STOP_SECONDS + 60)
