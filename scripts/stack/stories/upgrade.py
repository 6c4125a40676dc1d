"""The story of `upgrade-postgres.sh`: the database goes to the next major version, and the old directory is kept."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import NEEDS_A_PERSON, Failure
from stack.parts import database, images, observation, services
from stack.parts.configuration import set_values
from stack.parts.lock import UPGRADE_POSTGRES, end_upgrade, exclusive, upgrade_containers
from stack.parts.steps import STOPPED, Steps, as_failure
from stack.runner import Runner
from stack.stories import backup

ROOT = "/var/lib/postgresql/data"
COPY_SECONDS = 4 * 3600  # 100 GB at 10 MB/s, and the indexes of it
START_SECONDS = 120
FRONT_DOOR_SECONDS = 60
# A copy has no dead rows; the log of its making and the indexes' sorting need some room besides.
ROOM_FACTOR = 1.3
# Of the two servers, each with 256 MB (max_wal_size) that it may pass by as much again while it writes fast.
WAL_BYTES = 1024**3
# The old server is reached by the new one's container alone, and writes neither rows nor into the archive. All else is
# as it was: what it logs nevertheless waits for the archive, and is whole after a cut of the power.
CLOSED = (
    "config_file=/etc/slipway/postgresql.conf",
    "listen_addresses=",
    "unix_socket_directories=/run/postgresql",
    "archive_command=",
    "default_transaction_read_only=on",
)
NOTE = "# POSTGRES_IMAGE before the upgrade to"


@dataclass
class Upgrade:
    """What is known at the beginning, and how far it has come."""

    runner: Runner
    project: Project
    base: str
    old: int
    new: int
    stopped: list[str] = field(default_factory=list)
    is_switched: bool = False

    @property
    def directory(self) -> str:
        """Where the new version has its data."""
        return f"{ROOT}/{self.new}"


def run(runner: Runner, root: Path, image: str) -> None:
    """Bring the database to the major version of a base image, or of the one that up.sh would choose.

    Raises:
        Failure: with everything as before, unless its code says that a person is needed.
    """
    project = load(root)
    with exclusive(runner, project, UPGRADE_POSTGRES):
        steps = Steps(runner, runner.clock())
        with steps.step("check") as done:
            upgrade = _check(runner, project, image)
            is_needed = upgrade.new > upgrade.old
            done(
                f"from Postgres {upgrade.old} to {upgrade.base}"
                if is_needed
                else "it is that version already"
            )
        if is_needed:
            with steps.step("image"):
                images.build_postgres(runner, images.with_base(project, upgrade.base), tag="next")
            with steps.step("backup"):
                backup.run(runner, is_full=False)
            _move(upgrade, steps)
            with steps.step("full backup"):
                # Those from before are of the old version, and only that can restore them. The first one of the new
                # version is a full one anyway; where the schedule was quicker this adds what came since.
                backup.run(runner, is_full=False)
            runner.say(
                f"\nPostgres {upgrade.new} after {runner.clock() - steps.started:.0f} s; {ROOT}/{upgrade.old} is kept"
            )
        runner.say(observation.what_serves(runner, project))


def _check(runner: Runner, project: Project, image: str) -> Upgrade:
    asked = observation.sql(
        runner,
        "select current_setting('server_version_num')::int / 10000, sum(pg_database_size(oid)) from pg_database",
    )
    if asked.code != 0:
        raise Failure(
            f"Postgres does not answer: {asked.err.strip()[-200:]}",
            hints=["an upgrade begins with a Postgres that is well: ./scripts/up.sh"],
            runbook=database.UPGRADE,
        )
    old, size = (int(word) for word in asked.out.strip().split("|"))
    base = images.choose_postgres(runner, project, image)
    new = database.image_version(runner, base)
    if new < old:
        raise Failure(
            f"{base} is Postgres {new}, and the database is of {old}", runbook=database.UPGRADE
        )
    df = ["df", "--block-size=1", "--output=avail", ROOT]
    free = int(
        runner.read(engine.compose_argv("exec", "--no-TTY", "postgres", *df)).out.split()[-1]
    )
    needed = size * ROOM_FACTOR + WAL_BYTES
    if new > old and free < needed:
        raise Failure(
            f"{free / 1e9:.1f} GB are free in Postgres' volume, and a copy may need {needed / 1e9:.1f} GB",
            hints=["make room first; nothing was touched"],
            runbook="postgres-volume-full",
        )
    return Upgrade(runner, project, base, old, new)


def _move(upgrade: Upgrade, steps: Steps) -> None:
    """Copy and switch; until the new server runs, any failure brings back what was."""
    runner = upgrade.runner
    try:
        with steps.step("stop what writes") as done:
            _stop(upgrade)
            done("nginx answers 503 from here on")
        with steps.step(f"copy from {upgrade.old} to {upgrade.new}"):
            _copy(upgrade)
        with steps.step("switch"):
            _switch(upgrade)
    except STOPPED as stopped:
        failure = as_failure(stopped, database.UPGRADE)
        _go_back(upgrade, failure)
        raise failure from None
    with steps.step("serve") as done:
        try:
            # The archive is that of the old database until it is told.
            runner.run(_one_shot("backup", "pgbackrest", "stanza-upgrade"))
            _start(upgrade, "backup", *upgrade.stopped)
            done(_await_front_door(upgrade))
        except STOPPED as stopped:
            failure = as_failure(stopped, database.UPGRADE)
            failure.code = NEEDS_A_PERSON
            failure.hints = [
                f"Postgres {upgrade.new} runs, with all rows; ./scripts/up.sh starts the rest",
                *failure.hints,
            ]
            raise failure from None


def _stop(upgrade: Upgrade) -> None:
    found = observation.services(upgrade.runner, upgrade.project)
    running = [service.name for service in found if service.state == "running"]
    upgrade.stopped = [name for name in running if name.startswith(("api-", "worker-"))]
    upgrade.runner.run(engine.compose_argv("stop", *upgrade.stopped, "backup", "postgres"))
    end_upgrade(upgrade.runner, upgrade.project)


def _copy(upgrade: Upgrade) -> None:
    runner = upgrade.runner
    old, new = upgrade_containers(upgrade.project)
    options = [word for setting in CLOSED for word in ("-c", setting)]
    serve = ["postgres", "-D", f"{ROOT}/{upgrade.old}", *options]
    runner.run(_one_shot("--detach", "--name", old, "postgres", *serve))
    ready = ["exec", old, "pg_isready", "--quiet", "--host=/run/postgresql"]
    _wait(
        runner,
        lambda: runner.read(["docker", *ready]).code == 0,
        START_SECONDS,
        "the old server does not start",
    )
    copy = _with_tag("next", _one_shot("--name", new, "postgres", "/etc/slipway/upgrade.sh"))
    copied = runner.follow(copy, timeout=COPY_SECONDS)
    if copied.code != 0:
        raise Failure("the copy failed", runbook=database.UPGRADE, evidence=copied.err[-3000:])
    runner.run(["docker", "stop", "--time", str(START_SECONDS), old])


def _switch(upgrade: Upgrade) -> None:
    """Name the new image, then the new directory: in between, no server would start at all."""
    runner, project = upgrade.runner, upgrade.project
    runner.run(engine.tag_argv(project.postgres_image, _tagged(project, "before")))
    _note_image(upgrade)
    upgrade.is_switched = True
    set_values(runner, project, {"POSTGRES_IMAGE": upgrade.base})
    runner.run(engine.tag_argv(_tagged(project, "next"), project.postgres_image))
    runner.run(
        _one_shot(
            "postgres", "mv", "--no-target-directory", f"{upgrade.directory}.new", upgrade.directory
        )
    )
    _start(upgrade, "postgres")


def _note_image(upgrade: Upgrade) -> None:
    """Keep the name of the image from before in `.env`: a run that is killed after this cannot put it back."""
    file = upgrade.project.root / ".env"
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(NOTE)
    ]
    note = f"{NOTE} {upgrade.new}: {upgrade.project.base('postgres')}"
    upgrade.runner.write(file, "\n".join([*lines, note]) + "\n", 0o600)


def _go_back(upgrade: Upgrade, failure: Failure) -> None:
    """Start what was stopped, as it was; add to the failure what became of it."""
    runner, project = upgrade.runner, upgrade.project
    try:
        end_upgrade(upgrade.runner, upgrade.project)
        made = [f"{upgrade.directory}.new"]
        if upgrade.is_switched:
            runner.run(engine.compose_argv("rm", "--stop", "--force", "postgres"))
            set_values(runner, project, {"POSTGRES_IMAGE": project.base("postgres")})
            runner.run(engine.tag_argv(_tagged(project, "before"), project.postgres_image))
            made.append(upgrade.directory)  # nothing was written into it but the copy
        runner.run(_one_shot("postgres", "rm", "--recursive", "--force", *made))
        _start(upgrade, "postgres", "backup", *upgrade.stopped)
        _await_front_door(upgrade)
        failure.hints.append(f"Postgres {upgrade.old} serves again, as before")
    except STOPPED as stopped:
        failure.code = NEEDS_A_PERSON
        failure.hints.append(f"going back failed too: {stopped}")
        failure.hints.append(f"POSTGRES_IMAGE in .env was {project.base('postgres')}")
        failure.hints.append(
            f"the rows are in {ROOT}/{upgrade.old}; ./scripts/up.sh starts what it can"
        )


def _tagged(project: Project, tag: str) -> str:
    return f"{project.postgres_image.rpartition(':')[0]}:{tag}"


def _one_shot(*words: str) -> list[str]:
    """Run a service's container for one command."""
    return engine.compose_argv("run", "--rm", "--no-deps", "--no-TTY", *words)


def _with_tag(tag: str, argv: list[str]) -> list[str]:
    return ["env", f"POSTGRES_TAG={tag}", *argv]


def _start(upgrade: Upgrade, *names: str) -> None:
    services.start(
        upgrade.runner, upgrade.project, *names, seconds=START_SECONDS, runbook=database.UPGRADE
    )


def _await_front_door(upgrade: Upgrade) -> str:
    runner, project = upgrade.runner, upgrade.project
    if upgrade.stopped:

        def is_ready() -> bool:
            return observation.ask(runner, project, "/readyz").status == 200

        _wait(runner, is_ready, FRONT_DOOR_SECONDS, "the front door is not ready")
    return f"{project.url} is ready"


def _wait(runner: Runner, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = runner.clock() + seconds
    while not condition():
        if runner.clock() > deadline:
            raise Failure(f"{otherwise} within {seconds:.0f} s", runbook=database.UPGRADE)
        runner.sleep(0.2)


COMMAND = "upgrade-postgres"
HELP = "bring the database to the next major version"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `upgrade-postgres.sh` takes."""
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
