"""The restore container, which restores a database into a separate directory (backup/restore/)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.parts import backup_service, services
from stack.runner import Result, Runner

RUNBOOK = "restore-all"
# Three passes (check, copy, check) over 100 GB at 15 MB/s, on a slow disk.
MAKE_SECONDS = 6 * 3600
SHORT_SECONDS = 600
BESIDE = "/var/lib/postgresql/beside"


@dataclass(frozen=True)
class Request:
    """The time to restore, the backup to start from, and the destination.

    Attributes:
        to: an ISO time in UTC, or empty for the end of the archive.
        label: the backup to start from, or empty for the newest that fits.
        repository: the number of the repository in pgBackRest.
        root: the folder to restore into, or empty for the database's own.
        stamp: a name for this restore, by its time.
    """

    to: str
    label: str
    repository: int
    root: str
    stamp: str


def _command(*words: str, timeout_seconds: float = SHORT_SECONDS) -> Command:
    module = ["restore", "python3", "-m", "backup.restore"]
    return engine.one_shot(*module, *words, timeout_seconds=timeout_seconds, may_fail=True)


def read_facts(result: Result) -> dict[str, Any]:
    """Return the facts of a command of the restore container.

    Raises:
        Failure: with its observation and hints.
    """
    hints = ["the database was not touched"]
    return backup_service.read_result(result, hints=hints, runbook=RUNBOOK)


def list_backups(runner: Runner, repository: int) -> Result:
    """List the backups and the times that can be restored."""
    return runner.read(_command("list", f"--repo={repository}"))


def tidy(runner: Runner, project: Project, runbook: str, root: str = "") -> Result:
    """End the processes and remove the files of a killed restore; list the databases."""
    labels = [
        f"label={engine.PROJECT_LABEL}={project.name}",
        f"label={engine.SERVICE_LABEL}=restore",
    ]
    services.end(runner, *labels, runbook=runbook)
    return runner.run(_command("tidy", *_root_words(root)))


def make(runner: Runner, request: Request, form: Callable[[str], str]) -> Result:
    """Restore and check a database in a separate directory; no running service is changed."""
    words = [f"--repo={request.repository}", f"--stamp={request.stamp}", *_root_words(request.root)]
    words += [f"--to={request.to}"] if request.to else []
    words += [f"--set={request.label}"] if request.label else []
    return runner.follow(_command("make", *words, timeout_seconds=MAKE_SECONDS), form)


def swap(runner: Runner, stamp: str, root: str = "") -> Result:
    """Replace the current database with the restored one, and keep the current one."""
    return runner.run(_command("swap", *_root_words(root), f"--stamp={stamp}"))


def swap_back(runner: Runner, stamp: str) -> Result:
    """Put the former database back."""
    return runner.run(_command("swap-back", f"--stamp={stamp}"))


def discard(runner: Runner, names: list[str]) -> Result:
    """Delete databases that earlier restores kept."""
    return runner.run(_command("discard", *names))


def _root_words(root: str) -> list[str]:
    return [f"--root={root}"] if root else []
