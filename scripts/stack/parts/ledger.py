"""The append-only ledger, one JSON object per line; and the evidence of failures."""

import getpass
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack.commands import engine, host
from stack.config.project import Project
from stack.failure import ROLLED_BACK, Failure
from stack.runner import Runner

KEPT_EVIDENCE = 20  # attempts; about 200 KB each


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
    readable = []
    for line in project.ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            readable.append(entry)
    return readable


def last(project: Project) -> dict[str, Any] | None:
    """Return the newest readable entry, or None."""
    readable = entries(project)
    return readable[-1] if readable else None


def has_begun_since(project: Project, entry: int) -> bool:
    """Whether a deploy or rollback, unless refused, has begun after the first `entry` entries."""
    return any(newer.get("result") == "begun" for newer in entries(project)[entry:])


def good_releases(project: Project) -> list[str]:
    """Return the releases that were live and never rolled back, the newest first."""
    good: list[str] = []
    for entry in entries(project):
        release = str(entry.get("to") or "")
        if (
            entry.get("result") == "done"
            and entry.get("action") in {"up", "deploy", "rollback"}
            and release
        ):
            abandoned = entry.get("from") if entry["action"] == "rollback" else None
            good = [release, *(name for name in good if name not in {release, abandoned})]
        elif entry.get("result") == "rolled back":
            good = [name for name in good if name != release]
    return good


def settings_of(project: Project, release: str) -> Path:
    """Return the file with the settings of a release while it was live."""
    return project.state / "configuration" / f"{release}.env"


def keep_settings(runner: Runner, project: Project, release: str) -> None:
    """Keep the current `.env`, which contains no secret, for a rollback to this release."""
    snapshot = settings_of(project, release)
    runner.make_directory(snapshot.parent, 0o750)
    if not runner.is_dry:
        runner.write(snapshot, (project.root / ".env").read_text(encoding="utf-8"), 0o600)


def keep_evidence(runner: Runner, project: Project, action: str, services: list[str]) -> Path:
    """Save logs and health records of the services and nginx' last lines, and return the folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = project.state / "evidence" / f"{stamp}-{action}"
    runner.make_directory(folder, 0o750)
    for old in sorted(folder.parent.iterdir())[:-KEPT_EVIDENCE]:  # their names begin with the time
        runner.run(host.remove_tree(old))
    for service in [*services, "nginx"]:
        logs = runner.read(engine.compose("logs", "--no-color", "--tail", "500", service))
        runner.write(folder / f"{service}.log", logs.out + logs.err, 0o640)
        container = runner.read(engine.compose("ps", "--all", "--quiet", service)).out.strip()
        if container:
            state = runner.read(engine.inspect_container(container, "{{json .State}}")).out
            runner.write(folder / f"{service}.state.json", state, 0o640)
    return folder
