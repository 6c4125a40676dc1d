"""The story of `drill.sh`: tries now what is tried every day."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.config.project import load
from stack.parts import last_line
from stack.runner import Runner
from stack.stories import backup

COMMAND = "drill"
HELP = "try now what is tried every day"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `drill.sh` takes."""
    parser.add_argument(
        "what",
        choices=["restore"],
        help="the newest backup, to a random time, into a scratch directory",
    )
    command_line.add_repository(parser)


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `drill.sh`."""
    load(root)  # refuses a broken .env
    backup.drill(runner, is_offsite=arguments.repo == "offsite")
    runner.say(last_line.text(runner, root))
    return 0
