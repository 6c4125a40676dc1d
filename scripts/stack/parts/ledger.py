"""The append-only ledger, one JSON object per line; and the evidence of failures."""

import getpass
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from stack.commands import engine, host
from stack.config.project import Project
from stack.failure import ROLLED_BACK, Failure
from stack.runner import Runner

# The result of a deploy that the preflight refused: nothing was touched.
NOT_BEGUN = "refused"
ADOPT = "adopt"
KEPT_EVIDENCE = 20  # attempts; about 200 KB each


@dataclass(frozen=True)
class Deployment:
    """A release with the service's settings.

    Attributes:
        number: its number in this stack; 0 if no script of this version placed the release.
        release: the name of its image's tag.
        settings: the hash of the service's settings.
    """

    number: int
    release: str
    settings: str = ""

    @property
    def key(self) -> int | str:
        """The value that identifies it in the ledger."""
        return self.number or self.release

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that the ledger records besides the release."""
        return {"deployment": self.number, "settings": self.settings}

    def __str__(self) -> str:
        return f"{self.release} (deployment {self.number})" if self.number else self.release


def record(runner: Runner, project: Project, action: str, **facts: Any) -> None:
    """Append an action, with its user and its time (UTC)."""
    runner.make_directory(project.state, 0o750)
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": os.environ.get("SUDO_USER") or getpass.getuser(),
        "action": action,
        **facts,
    }
    # A full disk or a power cut may have left a partial line: the new entry must not continue it.
    is_cut = project.ledger.exists() and project.ledger.read_bytes()[-1:] not in {b"", b"\n"}
    runner.append(project.ledger, "\n" * is_cut + json.dumps(entry))


def outcome_of(failure: Failure) -> dict[str, str]:
    """Return the kind of a failed deploy or rollback, for the ledger and the notification."""
    result = "rolled back" if failure.code == ROLLED_BACK else "failed"
    return {"result": result, "reason": failure.observation}


def entries(project: Project) -> list[dict[str, Any]]:
    """Return every readable entry, oldest first; skip a line that a power cut left incomplete."""
    if not project.ledger.exists():
        return []
    return list(_entries_in(project.ledger.read_text(encoding="utf-8", errors="replace")))


@lru_cache(maxsize=8)  # a command reads the file up to ten times
def _entries_in(text: str) -> tuple[dict[str, Any], ...]:
    readable = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            readable.append(entry)
    return tuple(readable)


def last(project: Project) -> dict[str, Any] | None:
    """Return the newest readable entry, or None."""
    readable = entries(project)
    return readable[-1] if readable else None


def has_window_ended(project: Project, entry: int) -> bool:
    """Whether a deploy or rollback has begun, or the slot was retired, after `entry` entries.

    One that was refused has not begun.
    """
    return any(
        newer.get("result") == "begun" or newer.get("action") == "retire"
        for newer in entries(project)[entry:]
    )


def last_live_slot(project: Project) -> str:
    """Return the slot that the last deploy, rollback or `up` made live; empty if none names it."""
    slots = [
        str(entry.get("slot") or "")
        for entry in entries(project)
        if entry.get("action") in {"up", "deploy", "rollback"} and entry.get("result") == "done"
    ]
    return slots[-1] if slots else ""


def good_deployments(project: Project) -> list[Deployment]:
    """Return the deployments that were live and never rolled back, the newest first.

    An entry of an earlier version names only a release, which then represents its deployment.
    """
    good: list[Deployment] = []
    for entry in entries(project):
        action, result, deployment = entry.get("action"), entry.get("result"), deployment_of(entry)
        if action == ADOPT:
            good = list(reversed(_adopted(entry)))
        elif result == "done" and action in {"up", "deploy", "rollback"} and deployment.release:
            good = [each for each in good if each.key != deployment.key]
            if action == "rollback":
                good = [each for each in good if not _is_left(each, entry)]
            good = [deployment, *good]
        elif result == "rolled back" and action == "deploy":
            # Only for a deploy: a rollback that was undone, as by Ctrl-C, keeps its target when
            # repeated.
            good = [each for each in good if each.key != deployment.key]
    return good


def good_releases(project: Project) -> list[str]:
    """Return the releases of the good deployments, the newest first."""
    return list(dict.fromkeys(each.release for each in good_deployments(project)))


def deployments(project: Project) -> list[Deployment]:
    """Return every numbered deployment, good or not, in the order of its last entry."""
    numbered: dict[int, Deployment] = {}
    for entry in entries(project):
        for each in _adopted(entry) if entry.get("action") == ADOPT else [deployment_of(entry)]:
            if each.number:
                numbered.pop(each.number, None)
                numbered[each.number] = each
    return list(numbered.values())


def never_succeeded(project: Project, deployment: Deployment) -> bool:
    """Whether the last deploy of a deployment failed, was killed or was rolled back."""
    results = [
        entry.get("result")
        for entry in entries(project)
        if entry.get("action") == "deploy"
        and (each := deployment_of(entry)).release == deployment.release
        and deployment.number in {0, each.number}
    ]
    return bool(results) and results[-1] != "done"


def next_number(project: Project) -> int:
    """Return the number of the next deployment; the number of a failed deployment is not reused."""
    return 1 + max((each.number for each in deployments(project)), default=0)


def record_adoption(
    runner: Runner, project: Project, live_release: str, adopted: list[Deployment]
) -> None:
    """Record the numbers of the good releases that an earlier version left."""
    listing = [vars(each) for each in adopted]
    record(runner, project, ADOPT, to=live_release, deployments=listing, result="done")


def _is_left(deployment: Deployment, rollback: dict[str, Any]) -> bool:
    """Whether a rollback ended the time of this deployment as the live one."""
    number = rollback.get("from_deployment")
    return deployment.number == number if number else deployment.release == rollback.get("from")


def _adopted(entry: dict[str, Any]) -> list[Deployment]:
    listing = entry.get("deployments")
    return [
        Deployment(each["number"], each["release"], each["settings"])
        for each in (listing if isinstance(listing, list) else [])
    ]


def deployment_of(entry: dict[str, Any]) -> Deployment:
    """Return the deployment of an entry; its number is 0 in an entry of an earlier version."""
    number = entry.get("deployment")
    release, settings = str(entry.get("to") or ""), str(entry.get("settings") or "")
    return Deployment(number if isinstance(number, int) else 0, release, settings)


def settings_of(project: Project, release: str) -> Path:
    """Return the file in which an earlier version kept the `.env` of a release."""
    return project.state / "configuration" / f"{release}.env"


def keep_evidence(runner: Runner, project: Project, action: str, services: list[str]) -> Path:
    """Save logs and health records of the services and nginx' last lines, and return the folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = project.state / "evidence" / f"{stamp}-{action}"
    runner.make_directory(folder, 0o750)
    for old in sorted(folder.parent.iterdir())[:-KEPT_EVIDENCE]:  # their names begin with the time
        runner.run(host.remove_tree(old))
    for service in [*services, "nginx"]:
        # Collect what is available: the engine itself may have failed.
        options = ["--no-color", "--tail", "500"]
        logs = runner.read(engine.compose("logs", *options, service, may_fail=True))
        runner.write(folder / f"{service}.log", logs.out + logs.err, 0o640)
        listed = runner.read(engine.compose("ps", "--all", "--quiet", service, may_fail=True))
        container = listed.out.strip() if listed.code == 0 else ""
        if container:
            state = runner.read(engine.inspect_container(container, "{{json .State}}")).out
            runner.write(folder / f"{service}.state.json", state, 0o640)
    return folder
