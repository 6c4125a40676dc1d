"""The five states from which histories begin; real commands lead to each."""

from collections.abc import Mapping
from pathlib import Path

from tests.simulator import actions
from tests.simulator.histories import History
from tests.simulator.host import Copy, Host

FIRST = "up\nwait 60"
WINDOW = f"{FIRST}\nedit good\ndeploy\nwait 60"
TAKEN_BACK = f"{WINDOW}\nedit fails-in-traffic\ndeploy\nwait 60"
STARTS: Mapping[str, str] = {
    "empty host": "",
    "first release in blue": FIRST,
    "window open, green live": WINDOW,
    "after a take-back": TAKEN_BACK,
    "rebooted, all stopped": f"{WINDOW}\nstop-all\nreboot",
}


def copies(folder: Path) -> dict[str, Copy]:
    """Return a copy of a host in each start state; every one is checked by the invariants."""
    made = {}
    bare = Host.bare(folder)
    actions.name_checkout(bare)
    empty = bare.copy()
    for name, lines in STARTS.items():
        bare.put_back(empty)
        if lines:
            History(bare, f"to the start: {name}").play(actions.read(lines))
        made[name] = bare.copy()
    return made
