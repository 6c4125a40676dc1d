"""What the scripts see to in Postgres itself, beside the application's schema."""

import re

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner

UPGRADE = "postgres-major-upgrade"
VERSION = "select current_setting('server_version_num')::int / 10000"


def image_version(runner: Runner, image: str) -> int:
    """Return the major version of Postgres in an image, 0 where it does not tell."""
    argv = engine.throwaway_argv(
        image, ["postgres", "--version"], mounts=[], user="postgres", environment={}
    )
    told = re.search(r"\d+", runner.read(argv).out)
    return int(told[0]) if told else 0


def check_version(runner: Runner, project: Project) -> None:
    """Refuse a base image of another major version than what runs; where nothing runs, its entry point refuses.

    Raises:
        Failure: before the running one is replaced.
    """
    asked = observation.sql(runner, VERSION)
    if asked.code != 0:
        return
    running, image = int(asked.out), project.base("postgres")
    new = image_version(runner, image)
    if new != running:
        raise Failure(
            f"POSTGRES_IMAGE is Postgres {new}, and the database is of {running}; that one runs on",
            hints=[
                "put POSTGRES_IMAGE in .env back to the image from before",
                f"then ./scripts/upgrade-postgres.sh --image {image}",
            ],
            runbook=UPGRADE,
        )


def furnish(runner: Runner) -> str:
    """Make what a Postgres of an older version or a mended one may lack; return what it lacks still, or `done`."""
    runner.run(
        engine.psql_argv("create extension if not exists pg_stat_statements", database="postgres")
    )
    ballast = runner.run(
        engine.compose_argv("exec", "--no-TTY", "postgres", "/etc/slipway/ballast.sh"), check=False
    )
    return ballast.err.strip().partition("\n")[0] if ballast.code else "done"
