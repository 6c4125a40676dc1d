"""The story of `export-secrets.sh`: secrets/ and `.env` as one encrypted file that a new host starts from.

The file is an OpenPGP message of a tar archive in base64, so that one can be opened by hand where Slipway is not:
`gpg --decrypt FILE | base64 --decode | tar --extract`. gpg, because Debian and Ubuntu have it, it takes the passphrase
from a pipe, and it notices a change of a single bit; `openssl enc` does not, and `age` asks the terminal alone.
"""

import base64
import getpass
import io
import os
import sys
import tarfile
import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path, PurePosixPath

from stack.commands import host
from stack.config import environment
from stack.config.project import CLEARABLE_SECRETS, SECRETS, Project, load
from stack.failure import Failure
from stack.runner import Result, Runner

RUNBOOK = "restore-to-a-new-host"
ENVIRONMENT, FOLDER = ".env", "secrets"
# The bundle lies off the host, where nothing slows down who tries passphrases: 16 characters as for a password.
PASSPHRASE_LEAST = 16
MODE_OF_FOLDER = {FOLDER: 0o700}  # those below are mounted into containers, whose users are others
Files = dict[str, tuple[int, bytes]]


def passphrase(file: Path | None, *, is_new: bool) -> str:
    """Return the first line of the file, or ask at the terminal: twice for a new bundle, as nothing is shown.

    Raises:
        Failure: where there is neither, or the two answers differ.
    """
    if file:
        if not file.is_file():
            raise Failure(f"there is no file {file}", hints=["its first line is the passphrase"])
        return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
    if not sys.stdin.isatty():
        raise Failure(
            "there is no terminal to ask for the passphrase", hints=["--passphrase-file FILE"]
        )
    given = getpass.getpass("passphrase of the bundle: ")
    if is_new and getpass.getpass("once more: ") != given:
        raise Failure("the two passphrases differ", hints=["nothing was written; try it once more"])
    return given


def export(
    runner: Runner, project: Project, target: Path, passphrase: str, *, is_overwrite: bool
) -> None:
    """Write the bundle, open it once more as a new host would, and say what it holds.

    Raises:
        Failure: where a secret is missing, the passphrase is short, or the target exists; nothing is written then.
    """
    if len(passphrase) < PASSPHRASE_LEAST:
        raise Failure(
            f"the passphrase has {len(passphrase)} characters, and {PASSPHRASE_LEAST} is the least",
            hints=[
                "six random words, for example; without it nobody opens the bundle, its owner neither"
            ],
        )
    if target.exists() and not is_overwrite:
        raise Failure(f"{target} exists", hints=["name another file, or say --overwrite"])
    found = _collect(project)
    done = _gpg(
        runner, passphrase, *host.GPG_ENCRYPT, text=base64.b64encode(_archive(found)).decode()
    )
    if done.code != 0:
        raise Failure(f"gpg could not encrypt: exit {done.code}", evidence=done.err)
    runner.write(target, done.out, 0o600)
    if _open(runner, target, passphrase) != found:
        raise Failure(
            f"{target} does not hold what was put into it", hints=["df -h; then export once more"]
        )
    runner.say(f"    {len(found)} files: {', '.join(found)}")
    runner.say(
        f"wrote {target}, and opened it again: it is good\n"
        "  keep it off this host, and its passphrase somewhere else than the file\n"
        "  export again after each change of .env or secrets/"
    )


def restore(
    runner: Runner, root: Path, source: Path, passphrase: str, *, is_overwrite: bool
) -> None:
    """Write what the bundle holds, where it is missing here; what is the same stays as it is.

    Raises:
        Failure: for a file that cannot be opened, and for files that differ; nothing is written then.
    """
    found = _open(runner, source, passphrase)
    places = {name: _place(root, found, name) for name in found}
    missing = [name for name, path in places.items() if not path.exists()]
    differing = [
        name
        for name in places
        if name not in missing and places[name].read_bytes() != found[name][1]
    ]
    if differing and not is_overwrite:
        raise Failure(
            f"these are here already, with other contents than in the bundle: {', '.join(differing)}",
            hints=[
                "nothing was written",
                "--overwrite takes those of the bundle: what was made with these is lost",
            ],
            runbook=RUNBOOK,
        )
    for name in (*missing, *differing):
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            runner.make_directory(
                _place(root, found, str(folder)), MODE_OF_FOLDER.get(str(folder), 0o755)
            )
        mode, content = found[name]
        runner.write(places[name], content.decode(), mode)
    same = len(found) - len(missing) - len(differing)
    runner.say(
        f"{len(missing)} files written, {len(differing)} replaced; {same} were the same already"
    )


def _collect(project: Project) -> Files:
    """Read `.env` and every file below secrets/."""
    needed = [project.secrets / name for name in SECRETS]
    absent = [
        str(path)
        for path in needed
        if not path.is_file()
        or (path.name not in CLEARABLE_SECRETS and not path.read_bytes().strip())
    ]
    if absent:
        raise Failure(
            f"missing or empty: {', '.join(absent)}",
            hints=[
                "a bundle without them would start no new host; ./scripts/up.sh makes those of a new stack"
            ],
            runbook=environment.RUNBOOK,
        )
    paths = {ENVIRONMENT: project.root / ENVIRONMENT}
    for path in sorted(project.secrets.rglob("*")):
        if path.is_file() and not path.name.startswith(
            "."
        ):  # what a write that was cut off left behind
            paths[f"{FOLDER}/{path.relative_to(project.secrets)}"] = path
    found = {name: (path.stat().st_mode & 0o777, path.read_bytes()) for name, path in paths.items()}
    for name, (_, content) in found.items():
        try:
            content.decode()
        except UnicodeDecodeError:
            raise Failure(
                f"{paths[name]} is not text", hints=["keys and certificates in PEM form are"]
            ) from None
    return found


def _archive(found: Files) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, (mode, content) in found.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _open(runner: Runner, source: Path, passphrase: str) -> Files:
    if not source.is_file():
        raise Failure(f"there is no file {source}", runbook=RUNBOOK)
    # Before gpg, which says of a cut file that the passphrase may be wrong.
    if not source.read_bytes().rstrip().endswith(b"-----END PGP MESSAGE-----"):
        raise Failure(
            f"{source} is damaged or no bundle: its last line is not that of an OpenPGP message",
            hints=["nothing was written", "take another copy of the file"],
            runbook=RUNBOOK,
        )
    done = _gpg(runner, passphrase, *host.GPG_DECRYPT, str(source.resolve()))
    with suppress(tarfile.TarError, ValueError, KeyError):
        if done.code == 0:
            return _unpack(base64.b64decode(done.out, validate=True))
    if "Bad session key" in done.err:
        observation, hint = (
            f"{source} does not open with this passphrase",
            "nothing was written; try it once more",
        )
    else:
        # What gpg printed up to the damage is secret: only its last word is told.
        said = (done.err.strip().splitlines() or ["its contents are of another form"])[-1]
        observation, hint = (
            f"{source} is damaged: {said}",
            "nothing was written; take another copy of the file",
        )
    raise Failure(observation, hints=[hint], runbook=RUNBOOK)


def _unpack(content: bytes) -> Files:
    found: Files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive.getmembers():
            path, inside = PurePosixPath(entry.name), archive.extractfile(entry)
            is_ours = entry.name == ENVIRONMENT or path.parts[0] == FOLDER
            if not is_ours or ".." in path.parts or not entry.isreg() or inside is None:
                raise ValueError(entry.name)
            found[entry.name] = (entry.mode & 0o777, inside.read())
    if ENVIRONMENT not in found:
        raise KeyError(ENVIRONMENT)
    return found


def _place(root: Path, found: Files, name: str) -> Path:
    """Return where a file of the bundle belongs: the bundle's own `.env` says where its secrets are."""
    if name == ENVIRONMENT:
        return root / ENVIRONMENT
    values = {line.key: line.value for line in environment.parse(found[ENVIRONMENT][1].decode())}
    secrets = Project(root, {**values, **_overriding()}).secrets
    return secrets / PurePosixPath(name).relative_to(FOLDER)


def _overriding() -> dict[str, str]:
    return {"SECRETS_DIR": os.environ["SECRETS_DIR"]} if os.environ.get("SECRETS_DIR") else {}


def _gpg(runner: Runner, passphrase: str, *arguments: str, text: str = "") -> Result:
    """Run gpg with a home of its own, gone afterwards: neither keys nor settings of this user play a part."""
    if runner.read(["gpg", "--version"]).code != 0:
        raise Failure("gpg is not installed", hints=["apt-get install --yes gpg"])
    with tempfile.TemporaryDirectory(prefix="slipway-gpg-") as home:
        # By standard input, its first line the passphrase: an argument would show it to every user of the host.
        return runner.read(
            host.gpg_argv(home, *arguments), stdin=f"{passphrase}\n{text}", timeout=host.GPG_SECONDS
        )


COMMAND = "export-secrets"
HELP = "secrets/ and .env as one encrypted file, and back"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `export-secrets.sh` takes."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the bundle; keep it away from this host"
    )
    parser.add_argument(
        "--import",
        dest="is_import",
        action="store_true",
        help="write what FILE holds into this checkout",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace FILE; with --import: files that differ from it",
    )
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="its first line is the passphrase; without it the terminal is asked",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `export-secrets.sh`; paths are relative to the caller's directory."""
    # The script changes into the checkout, and leaves where it was called in a variable.
    caller = Path(os.environ.get("CALLER_DIRECTORY", ""))
    file, secret = caller / arguments.file, arguments.passphrase_file
    phrase = passphrase(secret and caller / secret, is_new=not arguments.is_import)
    if arguments.is_import:
        restore(runner, root, file, phrase, is_overwrite=arguments.overwrite)
    else:
        export(runner, load(root), file, phrase, is_overwrite=arguments.overwrite)
    return 0
