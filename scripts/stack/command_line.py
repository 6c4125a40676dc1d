"""The arguments that several commands share, and the types of their values."""

from argparse import ArgumentParser, ArgumentTypeError

REPOSITORIES = ("local", "offsite")


def add_dry_run(parser: ArgumentParser) -> None:
    """Add --dry-run, which makes the command line choose a runner that changes nothing."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def add_wait_lock(parser: ArgumentParser) -> None:
    """Add --wait-lock, the seconds that a command waits for the lock."""
    parser.add_argument(
        "--wait-lock",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait for another deploy to end",
    )


def add_repository(parser: ArgumentParser) -> None:
    """Add --repo, the repository of backups to read."""
    parser.add_argument(
        "--repo",
        choices=REPOSITORIES,
        default="local",
        help="from the backups of this host (the default), or from the backups off the host",
    )


def positive(text: str) -> int:
    """Return a whole number above 0; argparse reports any other text as a usage error."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)
