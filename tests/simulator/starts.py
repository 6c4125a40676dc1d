"""The states from which histories begin; real commands lead to each."""

import itertools
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
# Each adds one fact to a start; nightly, every combination of both lists is a start.
TRAFFIC: Mapping[str, str] = {"traffic": "", "no traffic": "traffic-off"}
FACTS: Mapping[str, str] = {
    "as it was": "",
    "edited settings": "set LOG_LEVEL=DEBUG",
    "edited limit": "set API_MEMORY=300m",
    "no ledger": "lose-ledger",
    "no link": "wait 60\nlose-link",
    "no name of the live release": "untag r1\nuntag r2",
    "idle API removed": "remove api-idle",
    "Postgres stopped": "stop postgres",
}
PRODUCT: Mapping[str, tuple[str, str]] = {
    f"{start}, {traffic}, {fact}": (start, f"{TRAFFIC[traffic]}\n{FACTS[fact]}")
    for start, traffic, fact in itertools.product(STARTS, TRAFFIC, FACTS)
    if start != "empty host"
}


def copies(folder: Path) -> dict[str, Copy]:
    """Return a copy of a host in each start state; every one is checked by the invariants."""
    made = {}
    bare = Host.bare(folder)
    actions.name_checkout(bare)
    empty = bare.copy()
    for name, lines in STARTS.items():
        bare.put_back(empty)
        History(bare, f"to the start: {name}").play(actions.read(lines))
        made[name] = bare.copy()
    return made


def make(host: Host, made: Mapping[str, Copy], name: str) -> Copy:
    """Return a copy of a host in one state of the product."""
    start, lines = PRODUCT[name]
    host.put_back(made[start])
    History(host, f"to the start: {name}").play(actions.read(lines))
    return host.copy()
