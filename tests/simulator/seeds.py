"""Random histories: one seed decides the start, every action and every fault."""

import random
from collections.abc import Iterator, Mapping

from stack.config.secret_files import BINDINGS

from tests.simulator import actions, faults, starts
from tests.simulator.actions import Action
from tests.simulator.containers import TRAITS
from tests.simulator.faults import Fault
from tests.simulator.histories import History
from tests.simulator.host import Copy, Host

# The relative frequency of each command, and its largest number of steps.
COMMANDS = {
    "deploy": (14, 26),
    "rollback": (7, 16),
    "up": (4, 34),
    "up --apply all": (3, 40),
    "status": (2, 1),
    "deploy --plan": (2, 1),
    "check-config": (1, 1),
    "backup": (2, 1),
    "restore": (1, 16),
    "retire": (3, 4),
    "upgrade": (1, 24),
}
EVENTS = {
    "edit": 14,
    "migration": 4,
    "set": 5,
    "wait": 12,
    "crash": 4,
    "stop": 3,
    "remove": 2,
    "bare-up": 2,
    "reboot": 2,
    "restart-engine": 2,
    "stop-all": 1,
    "untag": 1,
    "fill-disk": 2,
    "free-disk": 4,
    "take-port": 1,
    "free-port": 2,
    "traffic-off": 1,
    "traffic-on": 2,
    "lose-link": 1,
    "lose-ledger": 1,
    "cut-ledger": 1,
    "break-nginx": 1,
    "mend-nginx": 3,
    "lose-secret": 1,
    "change-secret": 1,
    "regain-secrets": 4,
    "go": 3,
    "move-folder": 1,
    "certificate": 1,
}
SERVICES = (
    *("api-live", "api-idle", "worker-live", "worker-idle"),
    *("nginx", "counter", "postgres", "redis"),
)
SECRETS = (*BINDINGS, "ops_password", "all")
PLACES = ("home", "home", "second", "copy")
# A key of the service, a limit, and keys of nginx, the data, backups and the scripts.
ASSIGNMENTS = (
    "LOG_LEVEL=DEBUG",
    "LOG_LEVEL=INFO",
    "RATE_LIMIT_PER_SECOND=300",
    "POSTGRES_MEMORY=400m",
    "KEEP_RELEASES=2",
    "API_MEMORY=300m",
    "API_MEMORY=256m",
    "HTTPS_PORT=9443",
    "HTTPS_PORT=8443",
    "BACKUP_KEEP_DAYS=7",
    "SLIPWAY_HOST=other.example",
    "SLIPWAY_HOST=localhost",
    "COMPOSE_PROJECT_NAME=other",
    "COMPOSE_PROJECT_NAME=slipway",
)
HOSTS = ("localhost", "other.example")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "set": ASSIGNMENTS,
    "wait": ("1", "10", "60", "700"),
    **dict.fromkeys(("crash", "stop", "remove"), SERVICES),
    **dict.fromkeys(("lose-secret", "change-secret"), SECRETS),
    "go": PLACES,
    "certificate": HOSTS,
}
FAULT_SHARE = 0.35
ACTIONS = 30
# The end of every history: it removes all causes, and the stack must work again.
HEALED = """
go home
free-disk
free-port
regain-secrets
set COMPOSE_PROJECT_NAME=slipway
set SLIPWAY_HOST=localhost
certificate localhost
mend-nginx
edit good
wait 700
up
deploy
up --apply all
wait 60
status
"""


def play(host: Host, copies: dict[str, Copy], seed: int, length: int = ACTIONS) -> History:
    """Play the history of a seed.

    Raises:
        Breach: with the whole history, when an invariant is broken.
    """
    chance = random.Random(seed)  # noqa: S311 - a history, no secret
    start = chance.choice(list(starts.STARTS))
    host.put_back(copies[start])
    history = History(host, f"seed {seed}, from: {start}")
    for action in choose(chance, length):
        history.do(action)
    history.play(actions.read(HEALED))
    return history


def choose(chance: random.Random, length: int) -> Iterator[Action]:
    """Yield random actions; half of them are commands."""
    names, weights = list(COMMANDS), [weight for weight, _ in COMMANDS.values()]
    for _ in range(length):
        if chance.random() < 0.5:
            yield choose_command(chance, chance.choices(names, weights)[0])
        else:
            name = chance.choices(list(EVENTS), list(EVENTS.values()))[0]
            yield Action((name, *arguments(chance, name)))


def choose_command(chance: random.Random, name: str) -> Action:
    """Return a command, perhaps with a fault; some name a release."""
    words = name.split()
    if name in {"rollback", "deploy"} and chance.random() < 0.2:
        number = chance.randint(1, 8)
        named = chance.choice([f"r{number}", str(number)])
        words += [named] if name == "rollback" else ["--image", f"r{number}"]
    fault = None
    if chance.random() < FAULT_SHARE:
        at = chance.randint(1, COMMANDS[name][1])
        is_question = chance.random() < 0.1
        mode = faults.ANSWERS_NOT if is_question else chance.choice(faults.STEP_MODES)
        fault = Fault(mode, at)
    return Action(tuple(words), fault)


def arguments(chance: random.Random, name: str) -> tuple[str, ...]:
    """Return the words after an event's name."""
    if name in {"edit", "migration"}:
        values, weights = (TRAITS, [8, 1, 1, 1, 2]) if name == "edit" else (("pre", "post"), [2, 1])
        return (chance.choices(values, weights)[0],)
    if name == "untag":
        return (f"r{chance.randint(1, 8)}",)
    return (chance.choice(ARGUMENTS[name]),) if name in ARGUMENTS else ()
