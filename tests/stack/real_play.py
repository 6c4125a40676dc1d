"""Does each action of a simulated history on a real host, and looks at the outcome."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import httpx2
from stack.config import environment
from stack.rules import migrations

from tests.simulator import actions, cover, likeness
from tests.simulator.actions import Action
from tests.simulator.containers import CRASHES, FAILS_IN_TRAFFIC
from tests.simulator.likeness import Facts, Line, Strike
from tests.stack.crowd import crowd
from tests.stack.harness import wait_until, write_revision
from tests.stack.real_host import Containers, RealHost, is_running, number_of, release_of

# What a release that fails in traffic answers with 500.
TRAFFIC = "/v1/items?limit=5"
# A bad release needs a longer watch than a good one, and no long wait for its health.
HASTE = {CRASHES: {"READY_SECONDS": "8"}, FAILS_IN_TRAFFIC: {"WATCH_SECONDS": "15"}}
DOOR_SECONDS = 3
NGINX_PORT = "8443/tcp"


def play(host: RealHost, start: str, lines: Sequence[Line]) -> list[Line]:
    """Play a history that was simulated, with the same faults at the same steps."""
    host.begin(start)
    return [do(host, line.action, line.strike) for line in lines]


def do(host: RealHost, action: Action, strike: Strike | None) -> Line:
    """Do one action."""
    if not action.is_command:
        EVENTS[action.name](host, *action.words[1:])
        return Line(action, None, None)
    words = words_of(host, action)
    if not words:
        return Line(action, strike, facts_of(host, None, "", is_struck=False))
    is_deploy = action.words == ("deploy",)
    with traffic(host) if is_deploy else nullcontext():
        shell = HASTE.get(host.trait, {}) if is_deploy else {}
        ended, steps = host.type(words, strike, **shell)
    host.wait_for_workers(steps)
    error = next((line for line in ended.stderr.splitlines() if line.startswith("error: ")), "")
    is_struck = any(step["is_struck"] for step in steps)
    return Line(action, strike, facts_of(host, ended.returncode, error, is_struck=is_struck))


def words_of(host: RealHost, action: Action) -> list[str]:
    """Return what is typed for an action; nothing where no window of the checkout could end."""
    if action.name == "retire":
        if not host.windows or host.windows[-1][0] != host.root:
            return []
        _, given = host.windows.pop()
        return ["env", "PYTHONPATH=scripts", "python3", "-m", "stack", *given, "--after", "0"]
    script, *given = actions.COMMANDS[action.name]
    given = [host.newest_postgres if word == cover.NEXT_POSTGRES else word for word in given]
    return [f"./scripts/{script}.sh", *given, *action.words[1:]]


def traffic(host: RealHost) -> AbstractContextManager[None]:
    """Have clients of several addresses ask while a release is deployed that fails in traffic."""
    is_wanted = host.trait == FAILS_IN_TRAFFIC and is_answering(host, host.containers())
    return crowd(host.stack, TRAFFIC) if is_wanted else nullcontext()


def is_answering(host: RealHost, containers: Containers) -> bool:
    """Whether the front door answers, on the port that nginx was started with."""
    if not is_running(containers, "nginx"):
        return False
    port = containers["nginx"]["NetworkSettings"]["Ports"][NGINX_PORT][0]["HostPort"]
    url = f"https://{host.stack.host}:{port}/readyz"
    try:
        with httpx2.Client(verify=host.stack.tls, trust_env=False, timeout=5) as client:
            return client.get(url).status_code == 200
    except (httpx2.HTTPError, OSError):
        return False


def is_answering_soon(host: RealHost, containers: Containers) -> bool:
    """Whether the front door answers within the second or two that a new nginx needs."""
    try:
        wait_until(lambda: is_answering(host, containers), DOOR_SECONDS, "the front door answers")
    except AssertionError:
        return False
    return True


def facts_of(host: RealHost, code: int | None, error: str, *, is_struck: bool) -> Facts:
    """Return the outcome of a command."""
    containers = host.containers()
    link = host.link(containers)
    live = containers.get(f"api-{link}")
    return Facts(
        code=code,
        is_struck=is_struck,
        slot=host.base.slot_of(link),
        release=host.edits.get(release_of(live)) if live else None,
        deployment=host.base.number_of(number_of(live)) if live else None,
        is_answering=is_answering_soon(host, containers),
        ledger=host.base.entry_text(host.ledger()),
        status=host.type(("./scripts/status.sh",))[0].returncode,
        error=likeness.observation_of(error, host.edits, str(host.folder), host.stack.project),
    )


def add_migration(host: RealHost, phase: str) -> None:
    """Add a migration to the checkout, with an edit of the code."""
    known = migrations.revisions(host.root)
    number = len(known)
    revision = f"2099_01_01_{number // 60:02}{number % 60:02}"
    body = f'op.create_table("honest_{number}", sa.Column("id", sa.Integer(), primary_key=True))'
    folder = host.root / "api/migrations/versions"
    write_revision(folder, revision, known[-1].identifier, phase, body)
    host.edit()


def set_key(host: RealHost, assignment: str) -> None:
    """Edit `.env`; a port is another free one."""
    key, _, value = assignment.partition("=")
    value = host.other_port if key == "HTTPS_PORT" else value
    file = host.root / ".env"
    text = file.read_text(encoding="utf-8")
    file.write_text(environment.with_values(text, {key: value}), encoding="utf-8")


def move_folder(host: RealHost) -> None:
    """Rename the checkout, and stand in it."""
    number = int(host.root.name.partition("-")[2] or 0) + 1
    host.stack.root = host.root.rename(host.folder / f"moved-{number}")
    host.is_moved = True


EVENTS: dict[str, Callable[..., None]] = {
    "edit": RealHost.edit,
    "migration": add_migration,
    "set": set_key,
    "move-folder": move_folder,
}
