"""Postgres: its version, its migration head, and objects that an older database may lack."""

import re
from dataclasses import replace

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import applied, images, observation
from stack.rules import findings
from stack.rules.findings import Finding
from stack.runner import Runner

UPGRADE = "postgres-major-upgrade"
VERSION = "select current_setting('server_version_num')::int / 10000"
NO_TABLE = '"alembic_version" does not exist'
HEAD = "select version_num from alembic_version"


def migration_head(runner: Runner) -> str:
    """Return the newest migration of the database; empty if it has none.

    Raises:
        Failure: if the database does not answer, so that its migrations are unknown.
    """
    answer = observation.sql(runner, HEAD)
    if answer.code != 0 and NO_TABLE not in answer.err:
        raise Failure(
            f"Postgres does not answer: {answer.err.strip()[-200:]}",
            hints=["./scripts/status.sh", "./scripts/logs.sh postgres"],
            runbook="site-down",
        )
    return answer.out.strip()


def is_empty(runner: Runner) -> bool:
    """Whether the database is new: Postgres answers that there is no table of migrations."""
    return NO_TABLE in observation.sql(runner, HEAD).err


def image_version(runner: Runner, image: str) -> int:
    """Return the major version of Postgres in an image, or 0 if the image does not answer."""
    command = engine.throwaway(
        image, ["postgres", "--version"], mounts=[], user="postgres", environment={}
    )
    number = re.search(r"\d+", runner.read(command).out)
    return int(number[0]) if number else 0


def check_version(runner: Runner, project: Project) -> None:
    """Refuse a base image whose major version differs from the running server's.

    Raises:
        Failure: before the running server is replaced.
    """
    findings.refuse(judge_version(runner, project))


def judge_version(runner: Runner, project: Project) -> list[Finding]:
    """Return a finding if the base image has another major version than the running server.

    If no server runs, the entry point of the image refuses. An image that is not on this host is
    not judged.
    """
    if not images.has_image(runner, project.base("postgres")):
        return []
    # Compose refuses a `.env` without a base image, and `.env` may not name the chosen one yet.
    bases = {key: name for key, name in project.values.items() if key.endswith("_IMAGE")}
    answer = runner.read(replace(engine.psql(VERSION, may_fail=True), env=bases))
    if answer.code != 0:
        return []
    running, image = int(answer.out), project.base("postgres")
    new = image_version(runner, image)
    if new == running:
        return []
    entry = applied.read(project).get("postgres")
    former = entry.settings.get("POSTGRES_IMAGE", "") if entry else ""
    fault = f"is Postgres {new}, but the running server is Postgres {running}"
    fix = (
        f"set POSTGRES_IMAGE in .env to {former or 'the former image'}, "
        f"then ./scripts/upgrade-postgres.sh --image {image}"
    )
    return [Finding("POSTGRES_IMAGE", fault, fix, UPGRADE)]


def complete(runner: Runner) -> str:
    """Add objects that an older or repaired database lacks; return what is missing, or `done`."""
    extension = "create extension if not exists pg_stat_statements"
    runner.run(engine.psql(extension, database="postgres"))
    ballast = runner.run(engine.exec_in("postgres", "/etc/slipway/ballast.sh", may_fail=True))
    return ballast.err.strip().partition("\n")[0] if ballast.code else "done"
