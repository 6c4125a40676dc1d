"""The actions of operators, clients and the machine; each is one line of a history."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack.commands import engine
from stack.parts import sources

from tests.simulator import faults, files
from tests.simulator.containers import GOOD
from tests.simulator.faults import Fault
from tests.simulator.host import Host
from tests.simulator.operators import Outcome, end_windows, type_command
from tests.simulator.runner import SimulatedRunner

# The commands of operators: the script's name, with words that a history does not repeat.
COMMANDS = {
    "deploy": ("deploy",),
    "rollback": ("rollback",),
    "up": ("up",),
    "status": ("status",),
    "check-config": ("check-config",),
    "backup": ("backup",),
    "restore": ("restore", "--latest", "--replace", "--yes"),
    "retire": ("retire",),
    "upgrade": ("upgrade-postgres", "--image", "postgres:18"),
}
BUSY_SECONDS = 40  # above the time after which the engine calls a server unhealthy
NGINX_FILE = "nginx/conf.d/a.conf"


@dataclass(frozen=True)
class Action:
    """One line of a history: words, and for a command perhaps a fault at one of its steps."""

    words: tuple[str, ...]
    fault: Fault | None = None

    def __str__(self) -> str:
        return " ".join(self.words) + (f" ! {self.fault}" if self.fault else "")

    @property
    def name(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def is_command(self) -> bool:
        """Whether it is a command of an operator."""
        return self.name in COMMANDS


def parse(line: str) -> Action:
    """Read a line of a history."""
    words, _, fault = line.partition(" ! ")
    return Action(tuple(words.split()), faults.parse(fault))


def read(lines: str) -> list[Action]:
    """Read a history, one action a line."""
    return [parse(line.strip()) for line in lines.splitlines() if line.strip()]


def carry_out(host: Host, action: Action) -> list[Outcome]:
    """Do an action; return the outcomes of its commands."""
    if action.name == "retire":
        places = [process.place for process in host.state.scheduled]
        if places[-1:] != [host.state.place]:
            return []  # the waiting process belongs to another checkout
    if action.is_command:
        return [type_command(host, command_words(host, action), action.fault)]
    EVENTS[action.name](host, *action.words[1:])
    return end_windows(host) if action.name == "wait" else []


def command_words(host: Host, action: Action) -> list[str]:
    """Return the operator's words, with real release names and the arguments of a window."""
    if action.name == "retire":
        return [*host.state.scheduled.pop().arguments, "--after", "0"]
    words = [host.state.names.get(word, word) for word in action.words[1:]]
    words = [*COMMANDS[action.name], *words]
    if "--image" in action.words:
        words[-1] = f"slipway/app:{words[-1]}"
    return words


def edit(host: Host, trait: str = GOOD) -> None:
    """Change the code of the checkout."""
    host.state.variant += 1
    files.write_sources(host.root, host.state.variant, trait)
    name_checkout(host)


def migration(host: Host, phase: str) -> None:
    """Add a migration to the checkout, with the code that needs it."""
    number = host.state.variant + 1
    revision = f"2026_02_{number // 60 + 1:02}_00{number % 60:02}"
    files.add_migration(host.root, phase, revision)
    host.state.phases[revision] = phase
    edit(host)


def name_checkout(host: Host) -> None:
    """Give the checkout's release a short name for histories, such as r2."""
    name = sources.release_name(SimulatedRunner(host), host.root)
    host.state.names[f"r{host.state.variant}"] = host.state.releases[host.state.place] = name


def set_key(host: Host, assignment: str) -> None:
    """Edit `.env`."""
    if (host.root / ".env").exists():
        key, _, value = assignment.partition("=")
        files.set_value(host.root, key, value)


def wait(host: Host, seconds: str) -> None:
    """Let time pass, and send one write of a client."""
    host.clock.advance(float(seconds))
    host.engine.end_drained()
    host.write_as_client()


def bare_up(host: Host) -> None:
    """Run `docker compose up --detach`."""
    host.answer(engine.compose("up", "--detach"))


def kill_waiter(host: Host) -> None:
    """Kill the processes that wait for the end of a rollback window, as the end of a CI job may."""
    host.state.scheduled.clear()


def stop(host: Host, service: str) -> None:
    """Stop a container by hand."""
    container = host.engine.container(host.project, chosen(host, service))
    if container:
        host.engine.stop(container)


def remove(host: Host, service: str) -> None:
    """Remove a container by hand."""
    container = host.engine.container(host.project, chosen(host, service))
    if container:
        host.engine.stop(container)
        host.engine.remove(container)


def crash(host: Host, service: str) -> None:
    """Kill the process in a container; the engine starts it again."""
    container = host.engine.container(host.project, chosen(host, service))
    if container and container.state == "running" and not container.is_stopped_by_hand:
        host.engine.begin(container)
    elif container and container.state == "running":
        container.state, container.health, container.ends_at = "exited", "", None


def be_busy(host: Host, service: str) -> None:
    """Have a server not answer its health check for a while, as a busy Postgres does."""
    container = host.engine.container(host.project, chosen(host, service))
    if container and container.is_well:
        container.health, container.busy_until = "unhealthy", host.clock.now + BUSY_SECONDS


def chosen(host: Host, service: str) -> str:
    """Return a service by its role in the stack: api-live is the API of the live slot."""
    live = host.engine.link(host.project) or "blue"
    idle = "green" if live == "blue" else "blue"
    return service.replace("-live", f"-{live}").replace("-idle", f"-{idle}")


def untag(host: Host, name: str) -> None:
    """Remove the name of a release from its image."""
    release = host.state.names.get(name, name)
    host.answer(engine.remove_image(f"slipway/app:{release}"))


def change_disk(*, is_full: bool) -> Callable[[Host], None]:
    """Return an event: the disk has no room, or has room again."""

    def change(host: Host) -> None:
        host.state.is_disk_full = is_full

    return change


def change_port(*, is_taken: bool) -> Callable[[Host], None]:
    """Return an event: another program listens on nginx' port, or no longer does."""

    def change(host: Host) -> None:
        nginx = host.engine.container(host.project, "nginx")
        if is_taken and (nginx is None or nginx.state != "running"):
            host.engine.used_ports.add("8443")
        elif not is_taken:
            host.engine.used_ports.clear()

    return change


def change_traffic(*, has_traffic: bool) -> Callable[[Host], None]:
    """Return an event: clients send requests all the time, or none."""

    def change(host: Host) -> None:
        host.engine.has_traffic = has_traffic

    return change


def lose_link(host: Host) -> None:
    """Delete the live link; nginx still runs."""
    volume = host.engine.volumes.get(f"{host.project}_slots")
    if volume:
        volume.link = ""


def lose_ledger(host: Host) -> None:
    """Delete the ledger."""
    files.remove(host.folder / "state" / "ledger.jsonl")
    host.state.deployments.forget_judgements()


def cut_ledger(host: Host) -> None:
    """Cut the last line of the ledger in half, as a power cut does."""
    file = host.folder / "state" / "ledger.jsonl"
    if file.exists():
        content = file.read_bytes()
        file.write_bytes(content[: max(0, len(content) - 20)])
        host.state.deployments.forget_judgements()


def lose_secret(host: Host, name: str) -> None:
    """Delete a secret file, or all of them."""
    folder = host.compose.secret(name).parent
    for file in [folder / name] if name != "all" else sorted(folder.glob("*")):
        if file.is_file():
            host.state.secrets.setdefault(str(file), file.read_text(encoding="utf-8"))
            files.remove(file)


def change_secret(host: Host, name: str) -> None:
    """Edit a secret file by hand."""
    file = host.compose.secret(name)
    if file.is_file():
        host.state.secrets.setdefault(str(file), file.read_text(encoding="utf-8"))
        files.remove(file)
        file.write_text("edited-by-hand\n", encoding="utf-8")


def regain_secrets(host: Host) -> None:
    """Restore every secret that was deleted or edited."""
    for path, content in host.state.secrets.items():
        file = Path(path)
        if file.parent.is_dir():
            files.remove(file)
            file.write_text(content, encoding="utf-8")
    host.state.secrets.clear()


def go(host: Host, place: str) -> None:
    """Work in another checkout: a fresh clone, a copy with `.env` and secrets, or the first one."""
    home = host.state.home
    target = home if place == "home" else place
    if not (host.folder / target).is_dir():
        skip = () if place == "copy" else (".env", "secrets")
        shutil.copytree(
            host.folder / home, host.folder / target, ignore=shutil.ignore_patterns(*skip)
        )
        host.state.releases[target] = host.state.releases[home]
    host.go(target)


def move_folder(host: Host) -> None:
    """Rename the checkout to which the stack belongs, and work in it."""
    former = host.folder / host.state.home
    host.state.home = f"moved-{host.engine.number()}"
    former.rename(host.folder / host.state.home)
    host.engine.moved[str(former)] = str(host.folder / host.state.home)
    host.state.releases[host.state.home] = host.state.releases.pop(former.name)
    host.state.secrets = {
        path.replace(f"{former}/", f"{host.folder / host.state.home}/"): content
        for path, content in host.state.secrets.items()
    }
    host.go(host.state.home)


def put_certificate(host: Host, name: str) -> None:
    """Put a certificate for a host into the secrets."""
    folder = host.compose.secret("tls")
    if folder.is_dir():
        for file in ("privkey.pem", "fullchain.pem"):
            (folder / file).write_text(f"{name}\n", encoding="utf-8")


def break_nginx(host: Host) -> None:
    """Write a mistake into nginx' configuration in the checkout."""
    (host.root / NGINX_FILE).write_text("broken\n", encoding="utf-8")


def mend_nginx(host: Host) -> None:
    """Correct nginx' configuration; the result differs from the first configuration."""
    (host.root / NGINX_FILE).write_text(f"# variant {host.state.variant}\n", encoding="utf-8")


EVENTS: dict[str, Callable[..., None]] = {
    "edit": edit,
    "migration": migration,
    "set": set_key,
    "wait": wait,
    "bare-up": bare_up,
    "kill-waiter": kill_waiter,
    "be-busy": be_busy,
    "stop": stop,
    "remove": remove,
    "crash": crash,
    "untag": untag,
    "stop-all": Host.stop_all,
    "reboot": lambda host: host.restart_engine(is_reboot=True),
    "restart-engine": lambda host: host.restart_engine(is_reboot=False),
    "fill-disk": change_disk(is_full=True),
    "free-disk": change_disk(is_full=False),
    "take-port": change_port(is_taken=True),
    "free-port": change_port(is_taken=False),
    "traffic-off": change_traffic(has_traffic=False),
    "traffic-on": change_traffic(has_traffic=True),
    "lose-link": lose_link,
    "lose-ledger": lose_ledger,
    "cut-ledger": cut_ledger,
    "lose-secret": lose_secret,
    "change-secret": change_secret,
    "regain-secrets": regain_secrets,
    "go": go,
    "move-folder": move_folder,
    "certificate": put_certificate,
    "break-nginx": break_nginx,
    "mend-nginx": mend_nginx,
}
