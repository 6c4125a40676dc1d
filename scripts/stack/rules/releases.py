"""Decides which releases may be removed; runs no command."""

from stack.rules.connections import SLOTS


def removable(tags: list[str], good: list[str], placed: list[str], keep: int) -> list[str]:
    """Return the removable tags; the tags and the good releases are given newest first.

    Placed releases, the newest releases and the last good releases stay.
    """
    releases = [tag for tag in tags if tag not in SLOTS]
    needed = {*placed, *releases[:keep], *good[: max(keep, 2)]}
    return [tag for tag in releases if tag not in needed]
