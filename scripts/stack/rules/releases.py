"""Decides which releases may be removed; asks nothing and removes nothing."""

from stack.rules.connections import SLOTS


def removable(tags: list[str], good: list[str], placed: list[str], keep: int) -> list[str]:
    """Return the tags that may go, given the tags and the good releases, newest first.

    A placed release stays, and so do the newest ones and the last good ones.
    """
    releases = [tag for tag in tags if tag not in SLOTS]
    needed = {*placed, *releases[:keep], *good[: max(keep, 2)]}
    return [tag for tag in releases if tag not in needed]
