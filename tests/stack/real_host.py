"""A real stack that is led to the start states of simulated histories; runs the real scripts.

The stack has the Postgres of the previous Debian release, so that there is a version to upgrade to.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stack.config import environment
from stack.parts import sources
from stack.runner import RealRunner

from tests.simulator import faults
from tests.simulator.containers import CRASHES, FAILS_IN_TRAFFIC, GOOD
from tests.simulator.cover import EMPTY, FIRST, WINDOW
from tests.simulator.likeness import Base, Strike
from tests.stack import old_postgres
from tests.stack.harness import ROOT, Stack, copy_checkout, free_ports, wait_until
from tests.stack.struck_python import PLAN

Containers = Mapping[str, Mapping[str, Any]]
KNOWN = environment.known_keys(ROOT / ".env.example")
LIST_ITEMS = "    return await service.list_items(database, user_id, cursor, limit)"
# The file, what is in it, and what stands there in a release with a trait.
TRAITS = {
    CRASHES: ("api/main.py", "app = ", 'raise RuntimeError("never starts")\napp = '),
    # The smoke test sends no `limit`; the crowd of real_play.py sends 5.
    FAILS_IN_TRAFFIC: (
        "api/items/routes.py",
        LIST_ITEMS,
        f'    if limit != 20:\n        raise RuntimeError("broken")\n{LIST_ITEMS}',
    ),
}
SERVICES = ("nginx", "api-blue", "api-green", "worker-blue", "worker-green")
SLOTS = ("blue", "green")
RELEASE = "org.opencontainers.image.version"
DRAIN_SECONDS, REFUSED_DRAIN_SECONDS = 30, 5
SETTINGS = {
    "WATCH_SECONDS": "1",
    "KEEP_RELEASES": "500",  # the simulated host of a history has few releases too
    "ROLLBACK_WINDOW_SECONDS": "7200",  # longer than the test: a history ends its windows itself
}


class RealHost:
    """A machine with a stack of its own: a checkout, and a state directory beside it.

    Attributes:
        trait: how a release of the checkout behaves.
        edits: each release that the history knows, as in likeness.Facts.
        windows: of each process that waits for the end of a rollback window, the checkout and the
            arguments.
        settings: `.env` after the first `up`; empty where there is no stack.
        placed: the containers of both slots as the start of the history left them.
        is_moved: whether a history renamed the checkout, whose files the containers mount.
    """

    def __init__(self, folder: Path, project: str, bases: dict[str, str], shell: dict[str, str]):
        copy_checkout(folder / "checkout")
        self.folder = folder
        self.stack = Stack(folder / "checkout", project=project)
        self.newest_postgres = bases["POSTGRES_IMAGE"]
        self.other_port = str(free_ports(1)[0])
        self.write_example({**bases, "POSTGRES_IMAGE": old_postgres.ensure_image()})
        self.write_python(shutil.which("python3", path=shell["PATH"]) or sys.executable)
        self.stack.environment = {
            **{key: value for key, value in shell.items() if key not in KNOWN},
            "COMPOSE_ANSI": "never",
            "PATH": f"{folder / 'bin'}:{shell['PATH']}",
        }
        self.trait, self.edits = GOOD, dict[str, int]()
        self.windows: list[tuple[Path, list[str]]] = []
        self.settings, self.placed, self.is_moved = "", dict[str, str](), False
        self.base = Base("blue", 0)

    @property
    def root(self) -> Path:
        """The checkout."""
        return self.stack.root

    def write_example(self, bases: dict[str, str]) -> None:
        """Make the values that the harness gives by its environment the defaults of `.env`."""
        given = {key: value for key, value in self.stack.environment.items() if key in KNOWN}
        given |= {**SETTINGS, **bases, "STATE_DIR": str(self.folder / "state")}
        example = self.root / ".env.example"
        text = example.read_text(encoding="utf-8")
        example.write_text(environment.with_values(text, given), encoding="utf-8")
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
        self.stack.run(*git, "commit", "--quiet", "--all", "--message", "settings of the test")

    def write_python(self, python: str) -> None:
        """Write the `python3` that the scripts meet first."""
        file, program = self.folder / "bin/python3", ROOT / "tests/stack/struck_python.py"
        file.parent.mkdir()
        file.write_text(f'#!/bin/sh\nexec {python} {program} "$@"\n', encoding="utf-8")
        file.chmod(0o755)

    def type(
        self, words: Sequence[str], strike: Strike | None = None, **shell: str
    ) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        """Run a command; return how it ended, and the record of its steps."""
        record = self.folder / "steps.jsonl"
        record.write_text("", encoding="utf-8")
        plan = {
            "folder": str(self.folder),
            "project": self.stack.project,
            "record": str(record),
            "strike": [strike.mode, strike.kind, strike.place] if strike else None,
        }
        shell = {**shell, PLAN: json.dumps(plan)}
        ended = self.stack.run(*words, check=False, timeout=900, **shell)
        steps = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        is_lost = strike is not None and strike.mode in {faults.FAILS, faults.KILLED_BEFORE}
        for step in steps:
            if step["kind"] == "start retire" and not (is_lost and step["is_struck"]):
                given = shlex.split(step["step"])
                self.windows.append((self.root, given[given.index("retire") :]))
        return ended, steps

    def succeed(self, *words: str) -> str:
        """Run a command that must succeed, and wait for the worker that it drains."""
        ended, steps = self.type(words)
        assert ended.returncode == 0, f"{words}: {ended.stdout}\n{ended.stderr}"
        self.wait_for_workers(steps)
        return ended.stdout

    def wait_for_workers(self, steps: Sequence[dict[str, Any]]) -> None:
        """Wait until a worker that was told to finish has ended, as the simulated one has."""
        drained = [step for step in steps if " kill --signal " in step["step"]]
        for step in drained:
            worker = step["step"].rpartition(" ")[2]
            try:
                wait_until(
                    partial(self.has_ended, worker),
                    REFUSED_DRAIN_SECONDS if step["is_struck"] else DRAIN_SECONDS,
                    f"{worker} ends",
                )
            except AssertionError:
                return  # a fault kept the signal from it, or an undo started another

    def has_ended(self, service: str) -> bool:
        """Whether the container of a service does not run."""
        return not is_running(self.containers(), service)

    def containers(self) -> Containers:
        """Return the engine's description of each container that there is."""
        names = [f"{self.stack.project}-{service}-1" for service in SERVICES]
        listed = json.loads(self.stack.run("docker", "inspect", *names, check=False).stdout)
        before = f"/{self.stack.project}-"
        return {each["Name"].removeprefix(before).removesuffix("-1"): each for each in listed}

    def link(self, containers: Containers) -> str:
        """Return the slot that the live link names."""
        if not is_running(containers, "nginx"):
            return ""
        words = ("docker", "exec", f"{self.stack.project}-nginx-1", "readlink")
        shown = self.stack.run(*words, "/run/slots/live.sock", check=False).stdout
        return shown.strip().removesuffix(".sock")

    def ledger(self) -> list[dict[str, Any]]:
        """Return the readable entries of the ledger."""
        file = self.folder / "state/ledger.jsonl"
        entries = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # a line that was cut off
        return entries

    def checkout_release(self) -> str:
        """Return the name of the checkout's release."""
        return sources.release_name(RealRunner(), self.root)

    def edit(self, trait: str = GOOD) -> None:
        """Change the code of the checkout."""
        self.stack.run("git", "checkout", "--quiet", "--", "api")
        if trait in TRAITS:
            path, old, new = TRAITS[trait]
            text = (self.root / path).read_text(encoding="utf-8")
            assert old in text, f"{old!r} is not in {path}"
            (self.root / path).write_text(text.replace(old, new), encoding="utf-8")
        self.stack.vary()
        self.trait = trait
        self.edits[self.checkout_release()] = max(self.edits.values(), default=0) + 1

    def begin(self, start: str) -> None:
        """Lead the host to a start state, in the quickest way."""
        if start == WINDOW:
            try:
                self.open_window()
            except AssertionError as error:
                print(f"==> a new stack, for no window opened in the former one: {error}")
                self.empty()
                self.open_window()
        else:
            self.empty()
            if start == FIRST:
                self.first_up()
        containers = self.containers()
        link = self.link(containers) or SLOTS[0]
        number = number_of(containers.get(f"api-{link}"))
        self.base = Base(link, number, self.ledger())
        self.placed = identities(containers)
        self.edits = {self.checkout_release(): 0}
        for slot in {*SLOTS} - {link} if start != EMPTY else ():
            if f"api-{slot}" in containers:
                self.edits[release_of(containers[f"api-{slot}"])] = -1

    def empty(self) -> None:
        """Remove everything but the checkout and the base images."""
        self.remove()
        for path in (self.root / "secrets", self.folder / "state"):
            shutil.rmtree(path, ignore_errors=True)
        (self.root / ".env").unlink(missing_ok=True)
        self.stack.run("git", "checkout", "--quiet", "--", ".")
        self.stack.run("git", "clean", "--quiet", "-d", "--force")
        self.windows.clear()
        self.settings, self.placed, self.trait, self.is_moved = "", {}, GOOD, False

    def remove(self) -> None:
        """Remove the stack, and end the processes that wait for the end of a window."""
        mark = f"PYTHONPATH={self.folder}/".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_own = mark in (process / "environ").read_bytes()
            except OSError:
                continue  # it has exited, or belongs to another user
            if is_own:
                os.kill(int(process.name), signal.SIGTERM)
        self.stack.remove()

    def first_up(self) -> None:
        """Bring up a first stack."""
        self.succeed("./scripts/up.sh")
        self.settings = (self.root / ".env").read_text(encoding="utf-8")

    def open_window(self) -> None:
        """Have the newest deployment live and the one before it warm, both good."""
        file = self.root / ".env"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if not self.settings or value_in(text, "POSTGRES_IMAGE") != old_postgres.IMAGE:
            self.empty()
            self.first_up()
        file.write_text(self.settings, encoding="utf-8")
        if self.trait != GOOD:
            self.edit()  # what a history left behind must not be deployed
        if "up.sh --apply" in self.succeed("./scripts/up.sh") or self.is_moved:
            self.succeed("./scripts/up.sh", "--apply", "all")
        for _ in range(self.missing_deploys()):
            self.edit()
            self.succeed("./scripts/deploy.sh")
        self.is_moved = False
        del self.windows[:-1]

    def missing_deploys(self) -> int:
        """Return how many deploys lead to a window with two good deployments."""
        containers, entries = self.containers(), self.ledger()
        is_same = bool(self.placed and self.windows) and identities(containers) == self.placed
        if is_same and not self.is_moved and not self.is_disturbed(entries):
            return 0
        live = number_of(containers.get(f"api-{self.link(containers)}"))
        own = [entry for entry in entries if entry.get("deployment") == live]
        is_good = bool(own) and own[-1].get("result") == "done"
        is_good = is_good and not self.is_moved
        return 1 if is_good and self.settings_of(live) == self.settings_of(1) else 2

    def is_disturbed(self, entries: Sequence[dict[str, Any]]) -> bool:
        """Whether a number was given, or the newest entry is not that of a success."""
        numbers = [int(file.stem) for file in (self.folder / "state/deployments").glob("*.env")]
        return max(numbers) != self.base.number or entries[-1].get("result") != "done"

    def settings_of(self, number: int) -> list[str]:
        """Return the settings of a deployment."""
        file = self.folder / f"state/deployments/{number}.env"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [line for line in lines if not line.startswith("SLIPWAY_")]


def value_in(text: str, key: str) -> str:
    """Return the value of a key in the text of `.env`."""
    return {line.key: line.value for line in environment.parse(text)}.get(key, "")


def is_running(containers: Containers, service: str) -> bool:
    """Whether the container of a service runs."""
    return service in containers and bool(containers[service]["State"]["Running"])


def identities(containers: Containers) -> dict[str, str]:
    """Return the identifier of each container of a slot, and whether it runs."""
    return {
        name: f"{each['Id']} {each['State']['Running']}"
        for name, each in containers.items()
        if name != "nginx"
    }


def release_of(container: Mapping[str, Any]) -> str:
    """Return the release that a container runs."""
    return str(container["Config"]["Labels"][RELEASE])


def number_of(container: Mapping[str, Any] | None) -> int:
    """Return the number of a container's deployment; 0 without one."""
    listed = container["Config"]["Env"] if container else []
    values = dict(line.partition("=")[::2] for line in listed)
    return int(values.get("SLIPWAY_DEPLOYMENT") or 0)
