"""The story of `restore.sh`: restores to a time, beside the live database or instead of it.

Until the exchange the restore container changes only its own directory.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import USAGE, Failure
from stack.parts import (
    backup_service,
    custody,
    last_line,
    observation,
    preflight,
    restorer,
    services,
)
from stack.parts.exchange import Exchange
from stack.parts.lock import exclusive
from stack.parts.preflight import Needs
from stack.parts.restorer import BESIDE, RUNBOOK, Request, read_facts
from stack.parts.steps import Steps
from stack.runner import Runner

BESIDE_SECONDS = 120
COPY = """this command inserts the rows of TABLE that are in the copy but not in the database:

  docker compose exec --no-TTY postgres-beside psql -qX -h /tmp -U postgres slipway \\
    -c 'copy TABLE to stdout' |
    docker compose exec --no-TTY postgres psql -X -h /tmp -U postgres slipway \\
    -v ON_ERROR_STOP=1 -1 \\
    -c 'create temporary table returned (like TABLE)' -c 'copy returned from stdin' \\
    -c 'insert into TABLE select * from returned on conflict do nothing'

look first:  docker compose exec postgres-beside psql -h /tmp -U postgres slipway
remove it:   ./scripts/restore.sh --remove-beside"""

REPOSITORIES = {"local": 1, "offsite": 2}  # Partner: LOCAL in backup/pgbackrest.py


@dataclass(frozen=True)
class Options:
    """The options of the command.

    Attributes:
        to: an ISO time in UTC, or empty for the end of the archive.
        label: the backup to start from, or empty for the newest that fits.
        repository: one of REPOSITORIES.
        is_confirmed: `--yes`.
    """

    to: str = ""
    label: str = ""
    repository: int = 1
    is_confirmed: bool = False


def moment(text: str) -> str:
    """Return a time in ISO format in UTC; a time without a zone is in UTC."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def show(runner: Runner, options: Options) -> None:
    """Print the backups and the times that can be restored."""
    listing = restorer.list_backups(runner, options.repository)
    read_facts(listing)
    runner.say("\n".join(backup_service.list_progress(listing)))


def _say_findings(runner: Runner, project: Project) -> None:
    """Refuse what no command can work with; print the faults of what a restore does not use."""
    for line in preflight.prepare(runner, project, Needs()):
        runner.say(f"    {line}")


def beside(runner: Runner, project: Project, options: Options) -> None:
    """Restore a copy of the database into a separate service; print how to copy rows back."""
    with exclusive(runner, project, "restore"):
        custody.claim(runner, project)
        _say_findings(runner, project)
        steps = Steps(runner, runner.clock())
        with steps.step("look") as report:
            present = read_facts(restorer.tidy(runner, project, RUNBOOK, BESIDE))
            if present.get("has_database"):
                raise Failure(
                    "there is a copy beside the database already",
                    hints=["./scripts/restore.sh --remove-beside removes it; nothing was touched"],
                    runbook="restore-rows",
                )
            report("; ".join(present.get("tidied", [])) or "nothing is beside the database")
        with steps.step("restore") as report:
            request = _request(options, BESIDE)
            restored = read_facts(restorer.make(runner, request, backup_service.format_line))
            read_facts(restorer.swap(runner, request.stamp, BESIDE))
            report(_describe(restored))
        with steps.step("start"):
            services.start(
                runner, project, "postgres-beside", seconds=BESIDE_SECONDS, runbook="restore-rows"
            )
        seconds = f"{runner.clock() - steps.started:.1f} s"
        runner.say(f"\nbeside the database, after {seconds}: {restored['text']}\n{COPY}")


def remove_beside(runner: Runner, project: Project) -> None:
    """Remove the copy beside the database, or the remains of a killed restore."""
    with exclusive(runner, project, "restore"):
        custody.claim(runner, project)
        runner.run(
            engine.compose("--profile", "beside", "rm", "--stop", "--force", "postgres-beside")
        )
        volume = f"{project.name}_beside"
        if observation.exists(runner, engine.inspect_volume(volume)):
            runner.run(engine.remove_volume(volume))


def replace(runner: Runner, project: Project, options: Options) -> None:
    """Replace the current database with a restored one, and keep the current one."""
    with exclusive(runner, project, "restore"):
        custody.claim(runner, project, is_restarting=True)
        _say_findings(runner, project)
        steps = Steps(runner, runner.clock())
        with steps.step("look") as report:
            present = read_facts(restorer.tidy(runner, project, RUNBOOK))
            report("; ".join(present.get("tidied", [])) or "nothing is left of an earlier restore")
        time = options.to or "the end of the archive"
        runner.say(f"    the database of {project.name} becomes what it was at {time}")
        runner.say("    later writes are no longer in it; the present directory is kept")
        confirm(project.name, options)
        request = _request(options)
        with steps.step("restore") as report:
            restored = read_facts(restorer.make(runner, request, backup_service.format_line))
            report(_describe(restored))
        has_old = bool(present.get("has_database"))
        Exchange(runner, project, steps, request.stamp, restored, has_old=has_old).run()


def _request(options: Options, root: str = "") -> Request:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return Request(options.to, options.label, options.repository, root, stamp)


def _describe(restored: dict[str, Any]) -> str:
    size = f"{restored['bytes'] / 1e6:.0f} MB"
    return f"{restored['text']}; {size} from the backup {restored['label']}"


def discard(runner: Runner, project: Project, options: Options) -> None:
    """Delete the databases that earlier restores kept."""
    with exclusive(runner, project, "restore"):
        custody.claim(runner, project)
        old = read_facts(restorer.tidy(runner, project, RUNBOOK)).get("old", {})
        for name, size in old.items():
            runner.say(f"    {name}: {size / 1e6:.0f} MB")
        if not old:
            runner.say("no database of an earlier restore is kept")
            return
        confirm(project.name, options)
        read_facts(restorer.discard(runner, list(old)))
        runner.say(f"deleted: {', '.join(old)}")


def confirm(name: str, options: Options, answer: Callable[[], str] = sys.stdin.readline) -> None:
    """Make a person confirm with the project's name, unless `--yes` is given.

    Raises:
        Failure: if the answer is not the project's name, or there is no answer.
    """
    if options.is_confirmed:
        return
    sys.stdout.write(f"type the project's name, {name}, to go on: ")
    sys.stdout.flush()
    if answer().strip() != name:
        raise Failure(
            "not confirmed",
            hints=["nothing was changed; --yes confirms without asking"],
            code=USAGE,
        )


COMMAND = "restore"
HELP = "restore the database to an earlier time"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `restore.sh`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--list", action="store_true", help="print the backups and the times that can be restored"
    )
    what.add_argument(
        "--to", metavar="TIME", help="such as 2026-11-21T12:30:00Z; a time without a zone is in UTC"
    )
    what.add_argument("--latest", action="store_true", help="everything that is in the archive")
    what.add_argument(
        "--remove-beside", action="store_true", help="remove the copy that --beside made"
    )
    what.add_argument(
        "--discard-old", action="store_true", help="delete the databases that --replace kept"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--beside", action="store_true", help="into a server of its own, beside the present one"
    )
    where.add_argument(
        "--replace", action="store_true", help="in place of the present database, which is kept"
    )
    parser.add_argument(
        "--set",
        default="",
        metavar="LABEL",
        help="begin with this backup instead of the newest that fits",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    command_line.add_repository(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `restore.sh`."""
    project, options = load(root, is_lenient=True), _options(arguments)
    if arguments.replace:
        replace(runner, project, options)
        return 0  # the story's last line shows what is live
    if arguments.beside:
        beside(runner, project, options)
    elif arguments.list:
        show(runner, options)
    elif arguments.remove_beside:
        remove_beside(runner, project)
    else:
        discard(runner, project, options)
    runner.say(last_line.text(runner, root))
    return 0


def _options(arguments: Namespace) -> Options:
    try:
        to = moment(arguments.to) if arguments.to is not None else ""
    except ValueError:
        arguments.usage_error(
            f"argument --to: '{arguments.to}' is not a time such as 2026-11-21T12:30:00Z"
        )
    is_restore = bool(to) or arguments.latest
    if is_restore != (arguments.beside or arguments.replace):
        arguments.usage_error("--to TIME and --latest go with --beside or --replace")
    return Options(
        to,
        arguments.set,
        repository=REPOSITORIES[arguments.repo],
        is_confirmed=arguments.yes,
    )
