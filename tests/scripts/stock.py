"""Gives a test's engine containers, volumes and secrets besides the test's own stack."""

import hashlib
from pathlib import Path

from stack.runner import Result

from tests.scripts.recording import RecordingRunner

DATA = ("slipway_backups", "slipway_postgres", "slipway_redis")
REFUSED = {
    "database_password": Result(2, err="FATAL:  password authentication failed for user"),
    "redis_password": Result(1, "NOAUTH Authentication required.\n", "AUTH failed: WRONGPASS"),
    "redis_admin_password": Result(1, "NOAUTH Authentication required.\n"),
    "backup_key": Result(1, err="ERROR: [095]: unable to flush"),
}
# A part of each login that identifies it.
LOGIN = {
    "database_password": "read -r PGPASSWORD",
    "redis_password": "redis-cli -e ping",
    "redis_admin_password": "redis-cli -e --user operator",
    "backup_key": "PGBACKREST_REPO1_CIPHER_PASS",
}
NOT_RUNNING = Result(1, err='service "postgres" is not running')


def have_volumes(runner: RecordingRunner, *names: str) -> None:
    """Give the engine these volumes; without names, the volumes of a stack that was up."""
    runner.reply("docker volume ls", Result(0, "\n".join(names or DATA) + "\n"))


def have_containers(
    runner: RecordingRunner,
    checkout: Path,
    *services: str,
    project: str = "slipway",
    state: str = "running",
) -> None:
    """Give the engine containers of these services, created from a checkout."""
    lines = [
        "\t".join([f"{project}-{service}-1", state, project, service, str(checkout)])
        for service in services
    ]
    runner.reply("docker container ls", Result(0, "\n".join(lines) + "\n"))


def mount_secret(runner: RecordingRunner, container: str, name: str, secret: str) -> None:
    """Make a container mount this secret."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    script = f"{container} sh -c '[ -s /run/secrets/{name} ]"
    runner.reply(script, Result(0, f"{digest}  -\n"))


def stop_logins(runner: RecordingRunner) -> None:
    """Make no server answer a login, and no container show its secret."""
    runner.reply("IFS= read -r", NOT_RUNNING)
    runner.reply("/run/secrets/", Result(1))


def refuse_login(runner: RecordingRunner, name: str) -> None:
    """Make the server of a secret refuse it."""
    runner.reply(LOGIN[name], REFUSED[name])


def make_other_checkout(root: Path) -> Path:
    """Make a second checkout beside the first."""
    other = root.with_name("other")
    other.mkdir()
    (other / "compose.yaml").touch()
    return other
