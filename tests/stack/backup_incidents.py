"""Injects the runbook's backup incidents; the commands of each entry must end its incident."""

from collections.abc import Callable

from tests.stack.harness import Stack, wait_until

REPOSITORY = "/var/lib/pgbackrest/repository"
METRICS_PORT = 9101  # in the container of the service `backup`


def pgbackrest(stack: Stack, *words: str) -> str:
    """Run pgBackRest in the service `backup`; return its output."""
    return stack.compose("exec", "--no-TTY", "backup", "pgbackrest", *words)


def backup_row(stack: Stack, name: str) -> tuple[bool, str]:
    """Return whether a line of status.sh is ok, and its text; False and "" if there is no line."""
    shown = stack.run("./scripts/status.sh", check=False).stdout
    for line in shown.splitlines():
        if line[4:20].strip() == name:
            return line.startswith("ok"), line[21:]
    return False, ""


def no_backup_service(stack: Stack) -> None:
    """Stop the service that takes the backups."""
    stack.compose("stop", "backup")
    assert not backup_row(stack, "last backup")[0]


def closed_repository(stack: Stack) -> None:
    """Remove the write permission from the repository."""
    stack.compose("exec", "--no-TTY", "backup", "chmod", "-R", "u-w", f"{REPOSITORY}/archive")
    stack.sql("select pg_switch_wal()")
    wait_until(
        lambda: int(stack.sql("select failed_count from pg_stat_archiver")) > 0,
        60,
        "archiving fails",
    )


BACKUP_INCIDENTS: dict[str, Callable[[Stack], None]] = {
    "backup-failed-or-too-old": no_backup_service,
    "archive-not-progressing": closed_repository,
}
