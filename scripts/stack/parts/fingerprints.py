"""Binds each secret to the data that it opens: its fingerprint in STATE_DIR, written after a login.

The volumes have no fingerprint, because their data is a better proof: Postgres keeps a verifier of
the password, and the backup repository opens only with its key (parts/logins.py).
"""

import hashlib
import hmac
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.commands import logins as commands
from stack.config import secret_files
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project
from stack.config.secret_files import BINDINGS
from stack.failure import Failure
from stack.parts import logins
from stack.parts.inventory import Container, Inventory
from stack.runner import Runner

RUNBOOK = "secrets-and-data-do-not-fit"
SALT_BYTES = 16
IMPORT = "./scripts/export-secrets.sh --import FILE brings them back from a bundle"


def fingerprint_file(project: Project, name: str) -> Path:
    """Return the file of a secret's fingerprint. To replace it, the operator deletes it."""
    return project.state / "fingerprints" / name


def make(secret: str, salt: str = "") -> str:
    """Return a fingerprint: a random salt, and the HMAC of the secret with it.

    The file reveals nothing useful: a secret of `up.sh` has 256 random bits, which nobody can
    guess. With the salt, the same secret has different fingerprints on two hosts. The hash is fast
    on purpose, because each command compares all fingerprints. If a person chose a weak secret, the
    mode of the file protects it.
    """
    salt = salt or secrets.token_hex(SALT_BYTES)
    return f"{salt} {hmac.new(salt.encode(), secret.encode(), hashlib.sha256).hexdigest()}"


def is_of(fingerprint: str, secret: str) -> bool:
    """Whether a fingerprint belongs to a secret."""
    return hmac.compare_digest(fingerprint, make(secret, fingerprint.partition(" ")[0]))


def read(project: Project, name: str) -> str:
    """Return the fingerprint of a secret; empty if it is missing or damaged."""
    try:
        text = fingerprint_file(project, name).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return ""
    salt, _, digest = text.partition(" ")
    return text if len(salt) == 2 * SALT_BYTES and len(digest) == 64 else ""


def list_changed(project: Project) -> list[str]:
    """Return the valid secrets that differ from their fingerprints."""
    return [
        name
        for name in logins.NAMES
        if (fingerprint := read(project, name))
        and not secret_files.fault(project.secrets / name)
        and not is_of(fingerprint, secret_files.read(project.secrets / name))
    ]


@dataclass(frozen=True)
class Finding:
    """The fault of a secret, as a sentence, and its fixes."""

    name: str
    fault: str
    hints: tuple[str, ...]


def judge(runner: Runner, project: Project, inventory: Inventory) -> list[Finding]:
    """Compare the secret files with fingerprints, volumes and the running containers."""
    findings = []
    for name in (*SECRETS, *OPTIONAL_SECRETS):
        path = project.secrets / name
        fault = secret_files.fault(path)
        if fault == secret_files.MISSING:
            finding = _judge_missing(runner, project, inventory, name)
        elif fault:
            text = f"the secret file {path} {fault}"
            finding = Finding(name, text, (secret_files.fix(name, fault),))
        else:
            finding = _judge_content(runner, project, inventory, name)
        findings += [finding] if finding else []
    return findings


def _judge_missing(
    runner: Runner, project: Project, inventory: Inventory, name: str
) -> Finding | None:
    """Judge a missing secret: `up.sh` creates one only if neither data nor fingerprint exists."""
    binding = BINDINGS.get(name)
    if binding is None:
        return None
    volume = f"{project.name}_{binding.volume}"
    has_volume, has_fingerprint = volume in inventory.volumes, bool(read(project, name))
    if not (has_volume or has_fingerprint):
        return None
    holder = _find_holder(runner, project, inventory, name)
    if binding.may_be_newer and not has_fingerprint and holder is None:
        return None
    reason = f"the volume {volume} is here" if has_volume else "this stack had one"
    fault = f"the secret file {project.secrets / name} is missing, and {reason}"
    copies = [_copy_command(project, holder[0], name)] if holder else []
    return Finding(name, fault, (*copies, IMPORT))


def _judge_content(
    runner: Runner, project: Project, inventory: Inventory, name: str
) -> Finding | None:
    """Judge a secret by its fingerprint, or else its server, or else a container's copy of it."""
    if name not in logins.NAMES:
        return None
    path, volume = project.secrets / name, f"{project.name}_{BINDINGS[name].volume}"
    if volume not in inventory.volumes:
        return None  # without data, any secret is right
    secret, fingerprint = secret_files.read(path), read(project, name)
    if fingerprint and is_of(fingerprint, secret):
        return None
    outcome = logins.Outcome.DENIED if fingerprint else logins.log_in(runner, name, secret)
    if outcome is logins.Outcome.OPENED:
        return None
    holder = _find_holder(runner, project, inventory, name)
    is_other = holder is not None and holder[1] != _digest(secret)
    if outcome is logins.Outcome.NO_ANSWER and not is_other:
        return None
    copies = [_copy_command(project, holder[0], name)] if holder and is_other else []
    file = shlex.quote(str(fingerprint_file(project, name)))
    forget = [f"only if its server already has this secret: rm {file}"] if fingerprint else []
    fault = f"{path} is not the secret that opens the volume {volume}"
    return Finding(name, fault, (*copies, IMPORT, *forget))


def _digest(secret: str) -> str:
    """Return the digest that digest_of_mounted prints."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_foreign(
    runner: Runner, project: Project, inventory: Inventory, name: str, secret: str
) -> bool:
    """Whether a secret does not open the data on this host; False without data. Its fingerprint
    decides, or else its server, a container's copy, or the present file.
    """
    if f"{project.name}_{BINDINGS[name].volume}" not in inventory.volumes:
        return False
    fingerprint = read(project, name)
    if fingerprint:
        return not is_of(fingerprint, secret)
    outcome = logins.log_in(runner, name, secret)
    if outcome is not logins.Outcome.NO_ANSWER:
        return outcome is logins.Outcome.DENIED
    holder = _find_holder(runner, project, inventory, name)
    if holder:
        return holder[1] != _digest(secret)
    path = project.secrets / name
    return not secret_files.fault(path) and secret_files.read(path) != secret


def _find_holder(
    runner: Runner, project: Project, inventory: Inventory, name: str
) -> tuple[Container, str] | None:
    """Return a running container that mounts the secret, and the digest of its copy.

    A container keeps the secret with which it started, even after the file was deleted.
    """
    for service in BINDINGS[name].services:
        for container in inventory.running(project.name):
            if container.service == service:
                answer = runner.read(commands.digest_of_mounted(container.name, name))
                if answer.code == 0 and answer.out.split():
                    return container, answer.out.split()[0]
    return None


def _copy_command(project: Project, container: Container, name: str) -> str:
    """Return the command that copies a secret from a container into its file."""
    paths = (project.secrets, project.secrets / name, project.secrets / ".new")
    folder, file, new = (shlex.quote(str(path)) for path in paths)
    make_folder = "" if project.secrets.is_dir() else f"mkdir --parents --mode=0700 {folder}; "
    copy = f"docker exec {container.name} cat /run/secrets/{name}"
    # The container may have ended since: an empty file would pass for the secret.
    return f"{make_folder}{copy} >{new} && install --mode=0444 {new} {file}; rm --force {new}"


def refuse_misfits(runner: Runner, project: Project, inventory: Inventory) -> None:
    """Refuse missing, malformed and foreign secrets before any effect.

    Raises:
        Failure: naming each of them, and the commands that fix them.
    """
    findings = judge(runner, project, inventory)
    if findings:
        hints = dict.fromkeys(hint for finding in findings for hint in finding.hints)
        raise Failure(
            "; ".join(finding.fault for finding in findings),
            hints=["nothing was touched", *hints],
            runbook=RUNBOOK,
        )


def refuse_missing(project: Project) -> None:
    """Refuse to start a service while any secret file is missing.

    Raises:
        Failure: naming the files; Compose names them only after a slot was placed.
    """
    missing = [
        name
        for name in (*SECRETS, *OPTIONAL_SECRETS)
        if secret_files.fault(project.secrets / name) == secret_files.MISSING
    ]
    if missing:
        raise Failure(
            "; ".join(f"the secret file {project.secrets / name} is missing" for name in missing),
            hints=["nothing was touched", "restore them from your copy, or ./scripts/up.sh"],
            runbook=RUNBOOK,
        )


def _refuse(project: Project, names: list[str]) -> None:
    if names:
        raise Failure(
            "; ".join(logins.describe(project, name) for name in names),
            hints=[IMPORT],
            runbook=RUNBOOK,
        )


@contextmanager
def proof(runner: Runner, project: Project) -> Iterator[None]:
    """Run a block that starts the servers, then check that each secret opens its data.

    Raises:
        Failure: naming the secrets that their servers refuse. It replaces the failure of a server
            that does not start because of its secret.
    """
    try:
        yield
    except Failure:
        _refuse(project, logins.list_refused(runner, project))
        raise
    keep(runner, project)


def keep(runner: Runner, project: Project) -> None:
    """Write the missing fingerprints of the secrets that open their data.

    Raises:
        Failure: naming the secrets that their servers refuse.
    """
    refused = []
    for name in () if runner.is_dry else logins.NAMES:
        path, fingerprint = project.secrets / name, read(project, name)
        if secret_files.fault(path):
            continue
        secret = secret_files.read(path)
        if fingerprint and is_of(fingerprint, secret):
            continue
        outcome = logins.log_in(runner, name, secret)
        if outcome is logins.Outcome.OPENED:
            file = fingerprint_file(project, name)
            runner.make_directory(file.parent, 0o700)
            runner.write(file, make(secret) + "\n", 0o600)
        elif outcome is logins.Outcome.DENIED:
            refused.append(name)
    _refuse(project, refused)
