"""The command line of the scripts: `python3 -m stack COMMAND`; parses, runs one story, prints how it ended."""

import argparse
import os
import signal
import sys
from pathlib import Path

from stack.config import project
from stack.failure import USAGE, Failure
from stack.parts import observation
from stack.runner import DryRunner, RealRunner, Runner
from stack.stories import (
    backup,
    check_config,
    deploy,
    export_secrets,
    jobs,
    logs,
    plan,
    restore,
    retire,
    rollback,
    status,
    up,
    upgrade_postgres,
)

ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    main = argparse.ArgumentParser(
        prog="scripts", description="Slipway's scripts; each is ./scripts/COMMAND.sh."
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser(
        "up", prog="scripts/up.sh", help="bring the whole stack up on this machine"
    )
    one.add_argument(
        "--refresh-bases",
        action="store_true",
        help="take newer base images; replaces nginx, Postgres and Redis",
    )
    one.add_argument(
        "--prepare", action="store_true", help="do all but start it, as for a restore to a new host"
    )

    one = commands.add_parser(
        "deploy", prog="scripts/deploy.sh", help="make a release of this checkout live"
    )
    one.add_argument("--plan", action="store_true", help="say what would change, and do nothing")
    one.add_argument(
        "--image",
        default="",
        metavar="REF",
        help="deploy this image instead of building the checkout",
    )

    one = commands.add_parser(
        "rollback", prog="scripts/rollback.sh", help="go back to a release that was good"
    )
    one.add_argument(
        "release",
        nargs="?",
        default="",
        metavar="RELEASE",
        help="default: the good one before the live one",
    )

    one = commands.add_parser(
        "upgrade-postgres",
        prog="scripts/upgrade-postgres.sh",
        help="bring the database to the next major version",
    )
    one.add_argument(
        "--image", default="", metavar="REF", help="default: the base image that up.sh would choose"
    )

    one = commands.add_parser(
        "retire", help="end the rollback window; deploy and rollback start this themselves"
    )
    one.add_argument("slot", choices=observation.SLOTS)
    one.add_argument("release")
    one.add_argument("--after", type=float, default=0, metavar="SECONDS")
    one.add_argument(
        "--entry",
        type=int,
        required=True,
        metavar="N",
        help="entries in the ledger when it was started",
    )

    _add_export_secrets(commands)
    _add_restore(commands)
    _add_looking(commands)
    _complete(commands.choices)
    return main


def _add_export_secrets(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    one = commands.add_parser(
        "export-secrets",
        prog="scripts/export-secrets.sh",
        help="secrets/ and .env as one encrypted file, and back",
    )
    one.add_argument("file", type=Path, metavar="FILE", help="the bundle; it belongs off this host")
    one.add_argument(
        "--import",
        dest="is_import",
        action="store_true",
        help="write what FILE holds into this checkout",
    )
    one.add_argument(
        "--overwrite",
        action="store_true",
        help="replace FILE; with --import: files that differ from it",
    )
    one.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="its first line is the passphrase; asked for otherwise",
    )


def _add_restore(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    one = commands.add_parser(
        "restore", prog="scripts/restore.sh", help="the database as it was at a time"
    )
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--list",
        action="store_true",
        help="which backups there are, and which times can be restored",
    )
    what.add_argument(
        "--to", metavar="TIME", help="as 2026-11-21T12:30:00Z; UTC where no zone is named"
    )
    what.add_argument("--latest", action="store_true", help="everything that is in the archive")
    what.add_argument(
        "--remove-beside", action="store_true", help="remove the copy that --beside made"
    )
    what.add_argument(
        "--discard-old", action="store_true", help="delete the databases that --replace kept"
    )
    where = one.add_mutually_exclusive_group()
    where.add_argument(
        "--beside", action="store_true", help="into a server of its own, beside the present one"
    )
    where.add_argument(
        "--replace", action="store_true", help="in the place of the present one, which is kept"
    )
    one.add_argument(
        "--set",
        default="",
        metavar="LABEL",
        help="begin with this backup instead of the newest that fits",
    )
    one.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _add_looking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that need a running stack, and no lock."""
    commands.add_parser(
        "check-config",
        prog="scripts/check-config.sh",
        help="what is wrong or unwise in the settings",
    )

    one = commands.add_parser(
        "backup", prog="scripts/backup.sh", help="take a backup of the database now"
    )
    one.add_argument(
        "--full",
        action="store_true",
        help="of everything, not only of what changed since the last one",
    )

    one = commands.add_parser(
        "drill", prog="scripts/drill.sh", help="try now what is tried every day"
    )
    one.add_argument(
        "what",
        choices=["restore"],
        help="the newest backup, to a random time, into a scratch directory",
    )

    one = commands.add_parser(
        "status", prog="scripts/status.sh", help="what is live and how it is; exit 1 if not well"
    )
    one.add_argument(
        "--history", action="store_true", help="what was done to the stack, the newest last"
    )

    one = commands.add_parser(
        "logs", prog="scripts/logs.sh", help="logs of services, or of one request"
    )
    one.add_argument(
        "services",
        nargs="*",
        metavar="SERVICE",
        help="for example api-blue; all where none is named",
    )
    one.add_argument(
        "--lines", type=_positive, metavar="N", help="last lines of each service (default 200)"
    )
    one.add_argument(
        "--request",
        default="",
        metavar="ID",
        help="every line of one request, from nginx to the job",
    )

    one = commands.add_parser("jobs", prog="scripts/jobs.sh", help="the jobs that failed for good")
    one.add_argument(
        "action", nargs="?", choices=jobs.ACTIONS, default="list", help="default: list"
    )
    one.add_argument(
        "ids", nargs="*", type=_positive, metavar="ID", help="of failed jobs, as `list` shows them"
    )
    one.add_argument("--all", action="store_true", help="every failed job instead of those named")
    one.add_argument(
        "--task", default="", metavar="NAME", help="with list or --all: of one task only"
    )


def _complete(commands: dict[str, argparse.ArgumentParser]) -> None:
    """Add what several commands have alike."""
    for name in ("up", "deploy", "rollback"):
        commands[name].add_argument(
            "--dry-run", action="store_true", help="say what would be done, and do nothing"
        )
    for name in ("deploy", "rollback"):
        commands[name].add_argument(
            "--wait-lock",
            type=float,
            default=0,
            metavar="SECONDS",
            help="wait for another deploy to end",
        )
    for name in ("restore", "drill"):
        commands[name].add_argument(
            "--repo",
            choices=["local", "offsite"],
            default="local",
            help="from the backups of this host (the default), or not",
        )
    for one in commands.values():
        one.set_defaults(usage_error=one.error)


def _run(arguments: argparse.Namespace, runner: Runner) -> int:
    command = arguments.command
    if command == "up":
        up.run(runner, ROOT, is_refresh=arguments.refresh_bases, is_prepare=arguments.prepare)
    elif command == "deploy" and not arguments.plan:
        deploy.run(runner, ROOT, deploy.Options(arguments.image, arguments.wait_lock))
    elif command == "rollback":
        rollback.run(runner, ROOT, arguments.release, arguments.wait_lock)
    elif command == "export-secrets":
        _export_secrets(arguments, runner)
    elif command == "upgrade-postgres":
        upgrade_postgres.run(runner, ROOT, arguments.image)
    else:
        return _run_loaded(arguments, runner, project.load(ROOT))
    return 0


def _export_secrets(arguments: argparse.Namespace, runner: Runner) -> None:
    caller = Path(
        os.environ.get("CALLER_DIRECTORY", "")
    )  # the script left it; what a person types is relative to it
    file, secret = caller / arguments.file, arguments.passphrase_file
    passphrase = export_secrets.read_passphrase(
        secret and caller / secret, is_new=not arguments.is_import
    )
    if arguments.is_import:
        export_secrets.import_bundle(
            runner, ROOT, file, passphrase, is_overwrite=arguments.overwrite
        )
    else:
        export_secrets.export_bundle(
            runner, project.load(ROOT), file, passphrase, is_overwrite=arguments.overwrite
        )


def _run_loaded(arguments: argparse.Namespace, runner: Runner, loaded: project.Project) -> int:
    command = arguments.command
    if command == "deploy":
        plan.run(runner, loaded)
    elif command == "retire":
        slot, release = arguments.slot, arguments.release
        retire.run(
            runner, loaded, slot, release, after_seconds=arguments.after, entry=arguments.entry
        )
    elif command == "logs":
        lines = arguments.lines or (100_000 if arguments.request else 200)
        logs.run(runner, loaded, arguments.services, lines=lines, request=arguments.request)
        # Not among the logs, which are often piped into something.
        sys.stderr.write(_what_serves(runner) + "\n")
    elif command == "backup":
        backup.run(runner, is_full=arguments.full)
        runner.say(_what_serves(runner))
    elif command == "drill":
        backup.drill(runner, is_offsite=arguments.repo == "offsite")
        runner.say(_what_serves(runner))
    elif command == "restore":
        _restore(arguments, runner, loaded)
    elif command == "check-config":
        return 0 if check_config.run(runner, loaded) else 1
    elif command == "jobs":
        jobs.run(
            runner,
            loaded,
            arguments.action,
            arguments.ids,
            is_all=arguments.all,
            task=arguments.task,
        )
        sys.stderr.write(_what_serves(runner) + "\n")
    elif arguments.history:
        status.history(runner, loaded)
    else:
        return 0 if status.run(runner, loaded) else 1
    return 0


def _restore(arguments: argparse.Namespace, runner: Runner, loaded: project.Project) -> None:
    try:
        moment = restore.moment(arguments.to) if arguments.to is not None else ""
    except ValueError:
        arguments.usage_error(
            f"argument --to: '{arguments.to}' is not a time as 2026-11-21T12:30:00Z"
        )
    options = restore.Options(
        moment,
        arguments.set,
        repository=restore.REPOSITORIES[arguments.repo],
        is_confirmed=arguments.yes,
    )
    is_wanted = bool(moment) or arguments.latest
    if is_wanted != (arguments.beside or arguments.replace):
        arguments.usage_error("--to TIME and --latest go with --beside or --replace")
    if arguments.replace:
        restore.replace(runner, loaded, options)
        return  # it has said what serves
    if arguments.beside:
        restore.beside(runner, loaded, options)
    elif arguments.list:
        restore.show(runner, options)
    elif arguments.remove_beside:
        restore.remove_beside(runner, loaded)
    else:
        restore.discard(runner, loaded, options)
    runner.say(_what_serves(runner))


def _what_serves(runner: Runner) -> str:
    try:
        return observation.what_serves(runner, project.load(ROOT))
    except (Failure, OSError):
        return "live: unknown, because .env cannot be read"


def _report(failure: Failure, runner: Runner) -> int:
    if failure.evidence:
        sys.stderr.write(failure.evidence.rstrip() + "\n")
    sys.stderr.write(f"{failure}\n")
    if failure.code != USAGE:
        sys.stderr.write(_what_serves(runner) + "\n")
    return failure.code


def _parse() -> argparse.Namespace:
    arguments, unknown = parser().parse_known_args()
    if unknown:
        arguments.usage_error(f"unknown: {' '.join(unknown)}")
    return arguments


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _stop(number: int, _: object) -> None:
    """A dropped connection or a `kill` ends a story as Ctrl-C does: it takes back what it must."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run one command and return its exit code (`docs/runbook.md#exit-codes`)."""
    arguments = _parse()
    os.chdir(ROOT)  # so that each printed command works as it stands in the checkout
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    runner: Runner = DryRunner() if getattr(arguments, "dry_run", False) else RealRunner()
    try:
        return _run(arguments, runner)
    except Failure as failure:
        return _report(failure, runner)
    except PermissionError as error:
        hints = [
            "run this as the user who ran ./scripts/up.sh first: .env and secrets/ are closed to others"
        ]
        entry = "boot-refused-by-the-configuration"
        return _report(
            Failure(f"this user may not open {error.filename}", hints, runbook=entry), runner
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        hints = [
            "df -h shows full disks; STATE_DIR and SECRETS_DIR in .env say where the scripts write"
        ]
        return _report(
            Failure(f"{error.strerror or error}{where}", hints, runbook="disk-full"), runner
        )
    except KeyboardInterrupt as stopped:
        sys.stderr.write(f"error: stopped by {str(stopped) or 'Ctrl-C'}\n{_what_serves(runner)}\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
