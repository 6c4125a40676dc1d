"""The bundle: secrets/ and `.env` in one encrypted file, from which a new host starts.

The file is an OpenPGP message with a tar archive in base64. A person can open it without Slipway:
`gpg --decrypt FILE | base64 --decode | tar --extract`. Debian and Ubuntu have gpg, which reads the
passphrase from a pipe and detects a changed bit. `openssl enc` detects none, and `age` reads a
passphrase only from a terminal.
"""

import base64
import io
import os
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from stack.commands import host
from stack.config import environment, secret_files
from stack.config.project import SECRETS, Project
from stack.failure import Failure
from stack.runner import Result, Runner

RUNBOOK = "restore-to-a-new-host"
ENVIRONMENT, FOLDER = ".env", "secrets"
# The containers, which run as other users, mount folders below secrets/.
MODE_OF_FOLDER = {FOLDER: 0o700}
Files = dict[str, tuple[int, bytes]]


def collect(project: Project) -> Files:
    """Read `.env` and every file below secrets/."""
    faults = [
        f"{project.secrets / name} {fault}"
        for name in SECRETS
        if (fault := secret_files.fault(project.secrets / name))
    ]
    if faults:
        raise Failure(
            "; ".join(faults),
            hints=[
                "a new host could not start from a bundle with these files",
                "./scripts/check-config.sh names the fix of each",
            ],
            runbook=environment.RUNBOOK,
        )
    paths = {ENVIRONMENT: project.root / ENVIRONMENT}
    for path in sorted(project.secrets.rglob("*")):
        # An interrupted write leaves a file whose name begins with a dot.
        if path.is_file() and not path.name.startswith("."):
            paths[f"{FOLDER}/{path.relative_to(project.secrets)}"] = path
    files = {name: (path.stat().st_mode & 0o777, path.read_bytes()) for name, path in paths.items()}
    for name, (_, content) in files.items():
        try:
            content.decode()
        except UnicodeDecodeError:
            raise Failure(
                f"{paths[name]} is not text",
                hints=["keys and certificates in PEM form are text"],
                runbook=RUNBOOK,
            ) from None
    return files


def encrypt(runner: Runner, files: Files, passphrase: str) -> str:
    """Return the text of a bundle of these files."""
    archive = base64.b64encode(_archive(files)).decode()
    encrypted = _gpg(runner, passphrase, *host.GPG_ENCRYPT, text=archive)
    if encrypted.code != 0:
        raise Failure(
            f"gpg could not encrypt: exit {encrypted.code}",
            hints=["the output of gpg is above"],
            runbook=RUNBOOK,
            evidence=encrypted.err,
        )
    return encrypted.out


def _archive(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (mode, content) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def decrypt(runner: Runner, source: Path, passphrase: str) -> Files:
    """Return the files of a bundle.

    Raises:
        Failure: if the file is damaged, or the passphrase is wrong.
    """
    if not source.is_file():
        raise Failure(
            f"there is no file {source}",
            hints=["name the file that export-secrets.sh wrote"],
            runbook=RUNBOOK,
        )
    # Check this before gpg runs: for a truncated file gpg reports a wrong passphrase.
    if not source.read_bytes().rstrip().endswith(b"-----END PGP MESSAGE-----"):
        raise Failure(
            f"{source} is damaged or no bundle: its last line is not that of an OpenPGP message",
            hints=["nothing was written", "take another copy of the file"],
            runbook=RUNBOOK,
        )
    decrypted = _gpg(runner, passphrase, *host.GPG_DECRYPT, str(source.resolve()))
    with suppress(tarfile.TarError, ValueError, KeyError):
        if decrypted.code == 0:
            return _unpack(base64.b64decode(decrypted.out, validate=True))
    if "Bad session key" in decrypted.err:
        raise Failure(
            f"{source} does not open with this passphrase",
            hints=["nothing was written; try again"],
            runbook=RUNBOOK,
        )
    # The output of gpg up to the damage is secret: only the last line of its errors is shown.
    error = (decrypted.err.strip().splitlines() or ["its contents have another format"])[-1]
    raise Failure(
        f"{source} is damaged: {error}",
        hints=["nothing was written; take another copy of the file"],
        runbook=RUNBOOK,
    )


def _unpack(content: bytes) -> Files:
    files: Files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive.getmembers():
            path, inside = PurePosixPath(entry.name), archive.extractfile(entry)
            is_ours = entry.name == ENVIRONMENT or path.parts[0] == FOLDER
            if not is_ours or ".." in path.parts or not entry.isreg() or inside is None:
                raise ValueError(entry.name)
            files[entry.name] = (entry.mode & 0o777, inside.read())
    if ENVIRONMENT not in files:
        raise KeyError(ENVIRONMENT)
    return files


def place_of(root: Path, files: Files, name: str) -> Path:
    """Return the path of a file; the bundle's `.env` names the folder of the secrets."""
    if name == ENVIRONMENT:
        return root / ENVIRONMENT
    values = {line.key: line.value for line in environment.parse(files[ENVIRONMENT][1].decode())}
    secrets = Project(root, {**values, **_overriding()}).secrets
    return secrets / PurePosixPath(name).relative_to(FOLDER)


def projects(root: Path, files: Files) -> list[Project]:
    """Return the projects that the present `.env` and the `.env` of a bundle describe."""
    present = root / ENVIRONMENT
    texts = [files[ENVIRONMENT][1].decode()]
    if present.is_file():
        texts.insert(0, present.read_text(encoding="utf-8", errors="replace"))
    every = [Project(root, _values(text)) for text in texts]
    return [each for number, each in enumerate(every) if each.name not in _names(every[:number])]


def _names(listed: list[Project]) -> set[str]:
    return {each.name for each in listed}


def _values(text: str) -> dict[str, str]:
    """Return the assignments of an `.env`; none if the file is damaged: the bundle replaces it."""
    try:
        return {line.key: line.value for line in environment.parse(text)} | _overriding()
    except Failure:
        return _overriding()


def _overriding() -> dict[str, str]:
    keys = ("SECRETS_DIR", "STATE_DIR", "COMPOSE_PROJECT_NAME")
    return {key: os.environ[key] for key in keys if os.environ.get(key)}


def _gpg(runner: Runner, passphrase: str, *arguments: str, text: str = "") -> Result:
    """Run gpg with a temporary home: keys and settings of this user have no effect."""
    if runner.read(host.GPG_VERSION).code != 0:
        raise Failure("gpg is not installed", hints=["apt-get install --yes gpg"], runbook=RUNBOOK)
    with tempfile.TemporaryDirectory(prefix="slipway-gpg-") as home:
        # On standard input: every user of the host sees the arguments of a process.
        return runner.read(host.gpg(home, *arguments, stdin=f"{passphrase}\n{text}"))
