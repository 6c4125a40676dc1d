"""Writes the file of a new migration: its name, its parent, and a body to fill in."""

import re
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

from stack.failure import USAGE, Failure
from stack.rules import migrations
from stack.runner import Runner

PHASES = {
    "pre": "it runs before the switch, while the previous release still serves: it may only add",
    "post": "it runs once the old slot is retired: it may remove",
}
TEMPLATE = Path("api/migrations/revision.template")
NAME = re.compile(r"(?=.{1,100}\Z)[a-z0-9]+(?:_[a-z0-9]+)*")
DATE = "%Y_%m_%d_%H%M"


def run(runner: Runner, root: Path, phase: str, name: str, now: datetime | None = None) -> None:
    """Write the file and print the next steps; the runner prints the path.

    Raises:
        Failure: if the name is invalid or the checkout's migrations are broken; nothing is
            written then.
    """
    if not NAME.fullmatch(name):
        raise Failure(
            f"'{name}' is not the name of a migration",
            hints=["name what it does in lower case, such as add_isbn"],
            code=USAGE,
        )
    parent = migrations.head(root)
    revision = next_revision(parent, now or datetime.now(UTC))
    path = root / migrations.VERSIONS / f"{revision}_{phase}_{name}.py"
    template = Template((root / TEMPLATE).read_text(encoding="utf-8"))
    content = template.substitute(
        message=name.replace("_", " ").capitalize(),
        revision=revision,
        parent=parent,
    )
    runner.write(path, content, 0o644)
    runner.say(f"    {path.relative_to(root)}")
    runner.say(f"    {phase}: {PHASES[phase]}")
    runner.say("next: write upgrade() and change the models, then run")
    runner.say("    ./scripts/test.sh unit -q tests/contracts/test_migrations.py")
    runner.say("    ./scripts/deploy.sh --plan")


def next_revision(parent: str, now: datetime) -> str:
    """Return the minute `now` as a revision, or the minute after the parent's if that is later.

    The file names define the order of the migrations, so no two may have the same minute.
    """
    after_parent = datetime.strptime(parent, DATE).replace(tzinfo=UTC) + timedelta(minutes=1)
    return max(now, after_parent).strftime(DATE)


COMMAND = "migration"
HELP = "write the file of a new migration"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `migration.sh`."""
    parser.add_argument("phase", choices=sorted(PHASES), help="before or after a switch")
    parser.add_argument("name", metavar="NAME", help="what it does, such as add_isbn")


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `migration.sh`."""
    run(runner, root, arguments.phase, arguments.name)
    return 0
