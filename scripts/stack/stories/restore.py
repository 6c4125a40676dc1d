"""The story of `restore.sh`: the database as it was at a time, beside the present one or in its place.

The container `restore` does the work (backup/restore/) and touches no directory but its own until the exchange.
"""

import json
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
from stack.parts import last_line, services
from stack.parts.lock import exclusive
from stack.parts.steps import Steps
from stack.runner import Result, Runner
from stack.stories import backup, replacement

RUNBOOK = "restore-all"
# 100 GB at 15 MB/s on a slow disk, three times: check, copy, check.
MAKE_SECONDS = 6 * 3600
SHORT_SECONDS = 600
BESIDE = "/var/lib/postgresql/beside"
BESIDE_SECONDS = 120
COPY = """rows that are in the copy and not in the database go back in one line; for a TABLE:

  docker compose exec --no-TTY postgres-beside psql -qX -h /tmp -U postgres slipway -c 'copy TABLE to stdout' |
    docker compose exec --no-TTY postgres psql -X -h /tmp -U postgres slipway -v ON_ERROR_STOP=1 -1 \\
    -c 'create temporary table returned (like TABLE)' -c 'copy returned from stdin' \\
    -c 'insert into TABLE select * from returned on conflict do nothing'

look before: docker compose exec postgres-beside psql -h /tmp -U postgres slipway
remove it:   ./scripts/restore.sh --remove-beside"""


REPOSITORIES = {"local": 1, "offsite": 2}  # partner: LOCAL and OFFSITE in backup/pgbackrest.py


@dataclass(frozen=True)
class Options:
    """What was typed. `to` is an ISO time in UTC or empty for the newest, `label` a backup or empty."""

    to: str = ""
    label: str = ""
    repository: int = 1
    is_confirmed: bool = False


def moment(text: str) -> str:
    """Return a time as ISO in UTC; one without a zone is taken as UTC."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def ask(runner: Runner, *words: str) -> Result:
    """Run a command of the restore container that tells nothing on its way."""
    return runner.run(_argv(*words), timeout=SHORT_SECONDS, check=False)


def _argv(*words: str) -> list[str]:
    service = ["run", "--rm", "--no-deps", "--no-TTY", "restore", "python3", "-m", "backup.restore"]
    return engine.compose_argv(*service, *words)


def look(runner: Runner, project: Project, root: str = "") -> dict[str, Any]:
    """End what a restore that was killed left running, tidy up after it, and return what there is."""
    labels = [
        f"label=com.docker.compose.project={project.name}",
        "label=com.docker.compose.service=restore",
    ]
    services.end(runner, *labels, runbook=RUNBOOK)
    return facts(ask(runner, "tidy", *([f"--root={root}"] if root else [])))


def facts(done: Result, runbook: str = RUNBOOK) -> dict[str, Any]:
    """Return what the restore container found.

    Raises:
        Failure: with its observation and hints.
    """
    if done.code == 0:
        for line in reversed(done.out.splitlines()):
            if line.startswith('{"result"'):
                return dict(json.loads(line)["result"])
    hints = [*backup.advised(done.err), "the database was not touched"]
    raise Failure(backup.observed("", done.err), hints=hints, runbook=runbook)


def show(runner: Runner, options: Options) -> None:
    """Say which backups there are and which times can be restored."""
    done = runner.read(_argv("list", f"--repo={options.repository}"), timeout=SHORT_SECONDS)
    facts(done)
    runner.say(
        "\n".join(line for line in done.out.splitlines() if not line.startswith('{"result"'))
    )


def beside(runner: Runner, project: Project, options: Options) -> None:
    """Make a copy of the database as it was, in a service of its own, and say how rows go back."""
    with exclusive(runner, project, "restore"):
        steps = Steps(runner, runner.clock())
        with steps.step("look") as done:
            found = look(runner, project, BESIDE)
            if found.get("has_database"):
                raise Failure(
                    "there is a copy beside the database already",
                    hints=["./scripts/restore.sh --remove-beside removes it; nothing was touched"],
                    runbook="restore-rows",
                )
            done("; ".join(found.get("tidied", [])) or "nothing is beside the database")
        with steps.step("restore") as done:
            stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            made = make(runner, options, BESIDE, stamp)
            facts(ask(runner, "swap", f"--root={BESIDE}", f"--stamp={stamp}"))
            done(told(made))
        with steps.step("start"):
            services.start(
                runner, project, "postgres-beside", seconds=BESIDE_SECONDS, runbook="restore-rows"
            )
        runner.say(
            f"\nbeside the database, after {runner.clock() - steps.started:.1f} s: {made['text']}\n{COPY}"
        )


def remove_beside(runner: Runner, project: Project) -> None:
    """Remove the copy beside the database, and what a restore that was cut off left of one."""
    with exclusive(runner, project, "restore"):
        runner.run(
            engine.compose_argv("--profile", "beside", "rm", "--stop", "--force", "postgres-beside")
        )
        volume = f"{project.name}_beside"
        if runner.read(["docker", "volume", "inspect", volume]).code == 0:
            runner.run(["docker", "volume", "rm", volume])


def replace(runner: Runner, project: Project, options: Options) -> None:
    """Put the database as it was into the place of the present one, which is kept until told otherwise."""
    with exclusive(runner, project, "restore"):
        steps = Steps(runner, runner.clock())
        with steps.step("look") as done:
            found = look(runner, project)
            done("; ".join(found.get("tidied", [])) or "nothing is left of an earlier restore")
        runner.say(
            f"    the database of {project.name} becomes what it was at {options.to or 'the end of the archive'}"
        )
        runner.say(
            "    everything that was written later is no longer in it; its directory is kept"
        )
        confirm(project.name, options)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        with steps.step("restore") as done:
            made = make(runner, options, "", stamp)
            done(told(made))
        replacement.take_over(
            runner, project, steps, replacement.New(stamp, made, bool(found.get("has_database")))
        )


def make(runner: Runner, options: Options, root: str, stamp: str) -> dict[str, Any]:
    """Restore into a directory of its own under a folder (by default the database's), checked and ready."""
    words = [f"--repo={options.repository}", f"--stamp={stamp}"]
    words += [f"--root={root}"] if root else []
    words += [f"--to={options.to}"] if options.to else []
    words += [f"--set={options.label}"] if options.label else []
    return facts(runner.follow(_argv("make", *words), timeout=MAKE_SECONDS, form=_line))


def _line(text: str) -> str:
    return "restored and checked" if text.startswith('{"result"') else text


def told(made: dict[str, Any]) -> str:
    """Return what a restore made, for a person."""
    return f"{made['text']}; {made['bytes'] / 1e6:.0f} MB from the backup {made['label']}"


def discard(runner: Runner, project: Project, options: Options) -> None:
    """Delete the databases that earlier restores kept."""
    with exclusive(runner, project, "restore"):
        found = look(runner, project)
        old = found.get("old", {})
        for name, size in old.items():
            runner.say(f"    {name}: {size / 1e6:.0f} MB")
        if not old:
            runner.say("no database of an earlier restore is kept")
            return
        confirm(project.name, options)
        facts(ask(runner, "discard", *old))
        runner.say(f"deleted: {', '.join(old)}")


def confirm(name: str, options: Options, answer: Callable[[], str] = sys.stdin.readline) -> None:
    """Have the project's name typed, unless `--yes` was.

    Raises:
        Failure: where something else was typed, or nobody is there.
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
HELP = "the database as it was at a time"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `restore.sh` takes."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--list", action="store_true", help="print the backups and the times that can be restored"
    )
    what.add_argument(
        "--to", metavar="TIME", help="as 2026-11-21T12:30:00Z; a time without a zone is in UTC"
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
        "--replace", action="store_true", help="in the place of the present one, which is kept"
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
    project, options = load(root), _options(arguments)
    if arguments.replace:
        replace(runner, project, options)
        return 0  # the story ends with what serves
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
            f"argument --to: '{arguments.to}' is not a time as 2026-11-21T12:30:00Z"
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
