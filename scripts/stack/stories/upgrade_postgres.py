"""The story of `upgrade-postgres.sh`: upgrades to a new major version; keeps the old directory."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import NEEDS_A_PERSON, Failure
from stack.parts import (
    applied,
    custody,
    database,
    front_door,
    images,
    observation,
    preflight,
    services,
    volume_owner,
)
from stack.parts.configuration import set_values
from stack.parts.lock import UPGRADE_POSTGRES, end_upgrade, exclusive, upgrade_containers
from stack.parts.preflight import Needs
from stack.parts.steps import Steps
from stack.parts.undo import Undo, beyond_undo
from stack.runner import Runner
from stack.stories import backup
from stack.waiting import wait_until

ROOT = "/var/lib/postgresql/data"
VERSION_AND_SIZE = (
    "select current_setting('server_version_num')::int / 10000, sum(pg_database_size(oid))"
    " from pg_database"
)
COPY_SECONDS = 4 * 3600  # 100 GB at 10 MB/s, and the build of the indexes
START_SECONDS = 120
FRONT_DOOR_SECONDS = 60
# A copy has no dead rows, but its WAL and the sorting of its indexes need some room.
ROOM_FACTOR = 1.3
# For two servers, each with 256 MB (max_wal_size), or twice that during fast writes.
WAL_BYTES = 1024**3
# Only the new server's container reaches the old server, which writes no rows and archives nothing.
# The old server's WAL still waits for the archive, and survives a power cut.
CLOSED = (
    "config_file=/etc/slipway/postgresql.conf",
    "listen_addresses=",
    "unix_socket_directories=/run/postgresql",
    "archive_command=",
    "default_transaction_read_only=on",
)
NOTE = "# POSTGRES_IMAGE before the upgrade to"


UNDO_ORDER = ("containers", "switch", "directories", "services", "advice")


@dataclass
class Upgrade:
    """The facts known at the beginning, the stopped services, and the undo."""

    runner: Runner
    project: Project
    base: str
    old: int
    new: int
    stopped: list[str] = field(default_factory=list)
    # Each undo depends on the previous one: after a failure or a signal the rest is skipped.
    undo: Undo = field(
        default_factory=lambda: Undo(
            UNDO_ORDER,
            vital=frozenset(UNDO_ORDER[:-1]),
            final=("advice",),
        )
    )

    @property
    def directory(self) -> str:
        """The data directory of the new version."""
        return f"{ROOT}/{self.new}"


def run(runner: Runner, root: Path, image: str) -> None:
    """Bring the database to the major version of a base image; default: the image of up.sh.

    Raises:
        Failure: with everything as before, unless its code means that a person is needed.
    """
    project = load(root)
    with exclusive(runner, project, UPGRADE_POSTGRES):
        steps = Steps(runner, runner.clock())
        with steps.step("check") as report:
            custody.claim(runner, project, is_restarting=True)
            preflight.prepare(runner, project, Needs())
            upgrade = _check(runner, project, image)
            is_needed = upgrade.new > upgrade.old
            change = f"from Postgres {upgrade.old} to {upgrade.base}"
            report(change if is_needed else "it is that version already")
        if is_needed:
            with steps.step("image"):
                images.build_postgres(
                    runner, images.replace_base(project, upgrade.base), tag="next"
                )
            with steps.step("backup"):
                backup.run(runner, is_full=False)
            with upgrade.undo.on_failure(database.UPGRADE):
                _stop(upgrade, steps)
                _copy(upgrade, steps)
                _switch(upgrade, steps)
            with beyond_undo(database.UPGRADE, partial(_advise_forward, upgrade)):
                _serve(upgrade, steps)
            with steps.step("full backup"):
                # Only the old version can restore the earlier backups. The first backup of the new
                # version is always a full one; if the schedule has already taken it, this backup
                # adds the changes since then.
                backup.run(runner, is_full=False)
            seconds = f"{runner.clock() - steps.started:.0f} s"
            runner.say(f"\nPostgres {upgrade.new} after {seconds}; {ROOT}/{upgrade.old} is kept")
        runner.say(observation.what_serves(runner, project))


def _check(runner: Runner, project: Project, image: str) -> Upgrade:
    answer = observation.sql(runner, VERSION_AND_SIZE)
    if answer.code != 0:
        raise Failure(
            f"Postgres does not answer: {answer.err.strip()[-200:]}",
            hints=["an upgrade needs a running and healthy Postgres: ./scripts/up.sh"],
            runbook=database.UPGRADE,
        )
    old, size = (int(word) for word in answer.out.strip().split("|"))
    base = images.choose_postgres(runner, project, image)
    planned = images.replace_base(project, base)
    volume_owner.refuse_another(
        runner,
        planned,
        (volume_owner.POSTGRES,),
        way_out="name an image of the present kind with --image, or first change the kind of the "
        "present version: set POSTGRES_IMAGE in .env, then ./scripts/up.sh",
    )
    new = database.image_version(runner, base)
    if new < old:
        raise Failure(
            f"{base} is Postgres {new}, but the database is of Postgres {old}",
            hints=["name the image of a newer version with --image"],
            runbook=database.UPGRADE,
        )
    df = ["df", "--block-size=1", "--output=avail", ROOT]
    free = int(runner.read(engine.exec_in("postgres", *df)).out.split()[-1])
    needed = size * ROOM_FACTOR + WAL_BYTES
    if new > old and free < needed:
        raise Failure(
            f"{free / 1e9:.1f} GB are free in Postgres' volume, "
            f"and a copy may need {needed / 1e9:.1f} GB",
            hints=["make room first; nothing was touched"],
            runbook="postgres-volume-full",
        )
    return Upgrade(runner, project, base, old, new)


def _stop(upgrade: Upgrade, steps: Steps) -> None:
    runner, project, undo = upgrade.runner, upgrade.project, upgrade.undo
    with steps.step("stop the writers") as report:
        undo.push("containers", lambda _: end_upgrade(runner, project))
        undo.push("directories", lambda _: _remove(upgrade, f"{upgrade.directory}.new"))
        undo.push("services", lambda failure: _serve_as_before(upgrade, failure))
        undo.push("advice", lambda failure: _advise(upgrade, failure))
        present = observation.services(runner, project)
        running = [service.name for service in present if service.state == "running"]
        writers = [name for name in running if name.startswith(("api-", "worker-"))]
        # The idle slot stays stopped: a killed deploy may have placed a release that never starts.
        live = engine.slot_services(observation.live_slot(runner, project))
        upgrade.stopped = [name for name in writers if name in live]
        runner.run(engine.compose("stop", *writers, "backup", "postgres"))
        end_upgrade(runner, project)
        report("nginx answers 503 from here on")


def _copy(upgrade: Upgrade, steps: Steps) -> None:
    runner = upgrade.runner
    old, new = upgrade_containers(upgrade.project)
    with steps.step(f"copy from {upgrade.old} to {upgrade.new}"):
        options = [word for setting in CLOSED for word in ("-c", setting)]
        serve = ["postgres", "-D", f"{ROOT}/{upgrade.old}", *options]
        runner.run(engine.one_shot("--detach", "--name", old, "postgres", *serve))
        ready = engine.exec_in_container(old, "pg_isready", "--quiet", "--host=/run/postgresql")
        if not wait_until(runner, lambda: runner.read(ready).code == 0, START_SECONDS):
            raise Failure(
                f"the old server does not start within {START_SECONDS} s",
                hints=[f"docker logs {old}"],
                runbook=database.UPGRADE,
            )
        copied = runner.follow(
            engine.one_shot(
                *("--name", new, "postgres", "/etc/slipway/upgrade.sh"),
                env={"POSTGRES_TAG": "next"},
                timeout_seconds=COPY_SECONDS,
            )
        )
        if copied.code != 0:
            raise Failure(
                "the copy failed",
                hints=["the last lines of the copy are above"],
                runbook=database.UPGRADE,
                evidence=copied.err[-3000:],
            )
        runner.run(engine.stop_container(old, START_SECONDS))


def _switch(upgrade: Upgrade, steps: Steps) -> None:
    """Tag the new image, then rename the new directory: in between no server can start."""
    runner, project, undo = upgrade.runner, upgrade.project, upgrade.undo
    former, following = (images.postgres_image(project, tag) for tag in ("before", "next"))
    with steps.step("switch"):
        runner.run(engine.tag_image(project.postgres_image, former))
        _note_image(upgrade)
        undo.push("switch", lambda _: _name_former_image(upgrade, former))
        # The new directory contains only the copy.
        both = (f"{upgrade.directory}.new", upgrade.directory)
        undo.push("directories", lambda _: _remove(upgrade, *both))
        set_values(runner, project, {"POSTGRES_IMAGE": upgrade.base})
        runner.run(engine.tag_image(following, project.postgres_image))
        runner.run(engine.one_shot("postgres", "mv", "--no-target-directory", *both))
        _start(upgrade, "postgres")


def _note_image(upgrade: Upgrade) -> None:
    """Keep the name of the former image in `.env`, because a killed run cannot restore it."""
    file = upgrade.project.root / ".env"
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(NOTE)
    ]
    note = f"{NOTE} {upgrade.new}: {upgrade.project.base('postgres')}"
    upgrade.runner.write(file, "\n".join([*lines, note]) + "\n", 0o600)


def _name_former_image(upgrade: Upgrade, former: str) -> None:
    runner, project = upgrade.runner, upgrade.project
    runner.run(engine.compose("rm", "--stop", "--force", "postgres"))
    set_values(runner, project, {"POSTGRES_IMAGE": project.base("postgres")})
    runner.run(engine.tag_image(former, project.postgres_image))


def _remove(upgrade: Upgrade, *directories: str) -> None:
    command = engine.one_shot("postgres", "rm", "--recursive", "--force", *directories)
    upgrade.runner.run(command)


def _serve_as_before(upgrade: Upgrade, failure: Failure) -> None:
    _start(upgrade, "postgres", "backup", *upgrade.stopped)
    applied.keep(upgrade.runner, upgrade.project, ["postgres", "backup"])
    _wait_for_front_door(upgrade)
    failure.hints.append(f"Postgres {upgrade.old} serves again, as before")


def _advise(upgrade: Upgrade, failure: Failure) -> None:
    """Add hints about the rows if a step of the undo failed."""
    if failure.code == NEEDS_A_PERSON:
        failure.hints += [
            f"POSTGRES_IMAGE in .env was {upgrade.project.base('postgres')}",
            f"the rows are in {ROOT}/{upgrade.old}; ./scripts/up.sh starts what it can",
        ]


def _serve(upgrade: Upgrade, steps: Steps) -> None:
    with steps.step("serve") as report:
        # Until this step the archive belongs to the old database.
        upgrade.runner.run(engine.one_shot("backup", "pgbackrest", "stanza-upgrade"))
        _start(upgrade, "backup", *upgrade.stopped)
        upgraded = images.replace_base(upgrade.project, upgrade.base)
        applied.keep(upgrade.runner, upgraded, ["postgres", "backup"])
        _wait_for_front_door(upgrade)
        report(f"{applied.front_door(upgrade.project).url} is ready")


def _advise_forward(upgrade: Upgrade, failure: Failure) -> None:
    hint = f"Postgres {upgrade.new} runs, with all rows; ./scripts/up.sh starts the rest"
    failure.hints = [hint, *failure.hints]


def _start(upgrade: Upgrade, *names: str) -> None:
    services.start(
        upgrade.runner, upgrade.project, *names, seconds=START_SECONDS, runbook=database.UPGRADE
    )


def _wait_for_front_door(upgrade: Upgrade) -> None:
    """Wait until the API is ready, if an API ran before the upgrade."""
    if not upgrade.stopped:
        return
    is_ready, answer = front_door.wait_for_answer(
        upgrade.runner, upgrade.project, FRONT_DOOR_SECONDS
    )
    if not is_ready:
        raise Failure(
            f"the front door is not ready within {FRONT_DOOR_SECONDS} s "
            f"(last answer: {front_door.describe(answer)})",
            hints=["./scripts/logs.sh nginx", "./scripts/status.sh"],
            runbook=database.UPGRADE,
        )


COMMAND = "upgrade-postgres"
HELP = "bring the database to the next major version"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `upgrade-postgres.sh`."""
    parser.add_argument(
        "--image",
        default="",
        metavar="REF",
        help="default: the base image that up.sh would choose",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `upgrade-postgres.sh`."""
    run(runner, root, arguments.image)
    return 0
