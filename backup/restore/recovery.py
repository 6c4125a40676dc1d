"""Makes a directory with the database of an earlier time.

It copies a backup there, recovers with a private server, and checks the tables.
"""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from backup import pgbackrest, postgres, programs
from backup.failure import Failure
from backup.programs import TIMED_OUT
from backup.restore.choice import Choice

SOCKET = Path("/tmp/recovery")  # noqa: S108  a tmpfs of this container
LOG = SOCKET / "postgres.log"
RECOVERY_SECONDS = 86400.0
START_SECONDS = 60
POLL_SECONDS = 0.2
STOP_SECONDS = 300
# 100 GB at 5 MB/s. Partner: MAKE_SECONDS in scripts/stack/parts/restorer.py
CHECK_SECONDS = 6 * 3600
# The WAL that recovery keeps (max_wal_size in postgres/postgresql.conf), and room to work.
SPARE_BYTES = 512 * 1024**2
PERCENT = re.compile(r"([\d.]+)%\)")
PROGRESS_PERCENT = 20.0
# A restore writes these into postgresql.auto.conf. If they stayed there, the next restore of this
# database would use them too.
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
    """Return how many bytes are free and how many are needed.

    Args:
        spare_percent: the part of the disk that must stay free beside the copy.

    Raises:
        Failure: when the disk has no room for a second copy of the database.
    """
    usage = shutil.disk_usage(parent)
    spare = SPARE_BYTES + int(usage.total * spare_percent / 100)
    needed = choice.backup.database_bytes + spare
    if usage.free < needed:
        raise Failure(
            f"the restored copy needs {needed / 1e9:.1f} GB,"
            f" and {usage.free / 1e9:.1f} GB are free",
            [
                "docs/runbook.md#disk-full",
                "./scripts/restore.sh --discard-old deletes databases of earlier restores",
            ],
        )
    return f"{needed / 1e9:.1f} GB of {usage.free / 1e9:.1f} GB that are free"


def copy_backup(choice: Choice, folder: Path, report: Callable[[str], None]) -> None:
    """Copy the backup into a new directory; pgBackRest compares each file with its checksum.

    Raises:
        Failure: with pgBackRest's error.
    """
    folder.mkdir(mode=0o700)
    repository = choice.backup.repository
    fetch = pgbackrest.argv("archive-get", f"--pg1-path={folder}", repository=repository)
    restore_command = " ".join([*fetch, "%f", '"%p"'])
    options = [
        f"--pg1-path={folder}",
        f"--set={choice.backup.label}",
        f"--type={choice.kind}",
        *([f"--target={choice.value}"] if choice.value else []),
        "--target-action=promote",
        f"--target-timeline={choice.timeline}",
        f"--recovery-option=restore_command={restore_command}",
        "--process-max=2",
        "--job-retry=0",
        "--log-level-console=detail",
    ]
    reached = 0.0

    def report_percent(line: str) -> None:
        nonlocal reached
        percent = PERCENT.search(line)
        if percent and float(percent[1]) >= reached + PROGRESS_PERCENT:
            reached = float(percent[1])
            report(f"{reached:.0f} %")

    argv = pgbackrest.argv("restore", *options, repository=repository)
    result = programs.follow(argv, report_percent)
    if result.code != 0:
        raise Failure(f"the backup {choice.backup.label} cannot be restored: {result.reason}")


def start_server(folder: Path) -> str:
    """Recover to the target with a private server; return its log line about the end of recovery.

    The server runs when this returns. It archives nothing: its archive_command is empty, so that
    the files of the new timeline wait for the real server.

    Raises:
        Failure: when the target was not reached. Without an explicit target, the server would have
            started with an older state and reported no error.
    """
    SOCKET.mkdir(mode=0o700, exist_ok=True)
    LOG.unlink(missing_ok=True)
    settings = {
        "config_file": "/etc/slipway/postgresql.conf",
        "listen_addresses": "",
        "unix_socket_directories": str(SOCKET),
        "archive_mode": "on",
        "archive_command": "",
        "log_min_duration_statement": "-1",  # does not log the statement with the password
        "log_min_error_statement": "panic",
        "hot_standby": "off",  # it accepts connections when it has reached its target, not before
    }
    options = " ".join(f"-c {key}='{value}'" for key, value in settings.items())
    start = ["pg_ctl", "start", f"--pgdata={folder}", f"--log={LOG}", "--wait"]
    result = programs.run([*start, f"--options={options}"], timeout=2 * START_SECONDS)
    is_up = result.code == 0 and _wait_for_writes(folder)
    log = LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else ""
    reached = re.findall(r"recovery stopping .*|consistent recovery state reached .*", log)
    if not is_up or not reached:
        stop_server(folder)
        fatal = re.findall(r"(?:FATAL|PANIC): +(.*)", log)
        reason = "; ".join(fatal[-2:]) or result.reason
        raise Failure(f"recovery failed: {reason}", log.splitlines()[-3:])
    return str(reached[-1])


def _wait_for_writes(folder: Path) -> bool:
    """Wait until the server accepts writes, and return whether it does.

    Without a hot standby, pg_ctl's own wait ends when recovery begins.
    """
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        try:
            if postgres.ask("select pg_is_in_recovery()", socket=str(SOCKET)) == [["f"]]:
                return True
        except Failure:  # it recovers, or it has stopped
            status = ["pg_ctl", "status", f"--pgdata={folder}"]
            if programs.run(status, timeout=START_SECONDS).code != 0:
                return False
        time.sleep(POLL_SECONDS)
    return False


def prepare_to_serve() -> None:
    """Remove recovery's settings, and set the present password.

    The secret may be newer than the backup.

    Raises:
        Failure: with Postgres' error.
    """
    for setting in SETTINGS:
        postgres.ask(f"alter system reset {setting}", socket=str(SOCKET))
    password = PASSWORD.read_text(encoding="utf-8").rstrip("\n").replace("'", "''")
    # No log contains the password: `log_statement` is off.
    postgres.ask(f"alter role slipway password '{password}'", socket=str(SOCKET))


def check_tables() -> str:
    """Check every table and index of the recovered database with amcheck.

    Raises:
        Failure: with the first lines about what is corrupt.
    """
    query = "select datname from pg_database where datallowconn"
    names = [row[0] for row in postgres.ask(query, socket=str(SOCKET))]
    without_amcheck = [name for name in names if not _has_amcheck(name)]
    place = [f"--host={SOCKET}", "--username=postgres"]
    result = programs.run(
        ["pg_amcheck", *place, "--all", "--install-missing", "--jobs=2"], timeout=CHECK_SECONDS
    )
    if result.code == TIMED_OUT:
        raise Failure(
            f"the restored database could not be checked within {CHECK_SECONDS} s",
            ["a faster disk checks it in less time"],
        )
    if result.code != 0:
        raise Failure(f"the restored database is corrupt: {result.reason}")
    for name in without_amcheck:
        postgres.ask(
            "set client_min_messages = error; drop extension amcheck",
            database=name,
            socket=str(SOCKET),
        )
    return f"{len(names)} databases are sound"


def _has_amcheck(name: str) -> bool:
    query = "select 1 from pg_extension where extname = 'amcheck'"
    return bool(postgres.ask(query, database=name, socket=str(SOCKET)))


def stop_server(folder: Path) -> None:
    """Stop the private server if it runs."""
    options = ["--mode=fast", "--wait", f"--timeout={STOP_SECONDS}"]
    programs.run(["pg_ctl", "stop", f"--pgdata={folder}", *options], timeout=STOP_SECONDS + 60)
