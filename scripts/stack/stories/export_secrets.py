"""The story of `export-secrets.sh`: packs secrets/ and `.env` into one file, and unpacks them."""

import getpass
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stack.config.project import Project, load
from stack.failure import Failure
from stack.parts import bundle, fingerprints, inventory, logins
from stack.parts.bundle import RUNBOOK
from stack.runner import Runner

# The bundle is kept off the host, where guesses are not limited: 16 characters, as for a password.
PASSPHRASE_LEAST = 16


def read_passphrase(file: Path | None, *, is_new: bool) -> str:
    """Return the file's first line, or ask at the terminal; for a new bundle ask twice.

    Raises:
        Failure: if there is neither a file nor a terminal, or the two answers differ.
    """
    if file:
        if not file.is_file():
            raise Failure(
                f"there is no file {file}",
                hints=["its first line is the passphrase"],
                runbook=RUNBOOK,
            )
        return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
    if not sys.stdin.isatty():
        raise Failure(
            "there is no terminal to ask for the passphrase",
            hints=["--passphrase-file FILE"],
            runbook=RUNBOOK,
        )
    passphrase = getpass.getpass("passphrase of the bundle: ")
    if is_new and getpass.getpass("once more: ") != passphrase:
        raise Failure(
            "the two passphrases differ",
            hints=["nothing was written; try again"],
            runbook=RUNBOOK,
        )
    return passphrase


def export_bundle(
    runner: Runner, project: Project, target: Path, passphrase: str, *, is_overwrite: bool
) -> None:
    """Write the bundle, open it as a new host does, and print the names of its files.

    Raises:
        Failure: if a secret is missing, the passphrase is short, or the target exists; nothing
            is written then.
    """
    if len(passphrase) < PASSPHRASE_LEAST:
        raise Failure(
            f"the passphrase has {len(passphrase)} characters, fewer than {PASSPHRASE_LEAST}",
            hints=[
                "take six random words, for example; without the passphrase nobody can open the "
                "bundle, not even its owner"
            ],
            runbook=RUNBOOK,
        )
    if target.exists() and not is_overwrite:
        raise Failure(
            f"{target} exists", hints=["name another file, or add --overwrite"], runbook=RUNBOOK
        )
    files = bundle.collect(project)
    foreign = fingerprints.list_changed(project)
    if foreign:
        raise Failure(
            f"{', '.join(foreign)} in {project.secrets} opened none of this stack's data",
            hints=["nothing was written", "./scripts/check-config.sh prints the fix"],
            runbook=fingerprints.RUNBOOK,
        )
    runner.write(target, bundle.encrypt(runner, files, passphrase), 0o600)
    if bundle.decrypt(runner, target, passphrase) != files:
        raise Failure(
            f"{target} does not contain the files that were put into it",
            hints=["df -h; then export once more"],
            runbook=RUNBOOK,
        )
    runner.say(f"    {len(files)} files: {', '.join(files)}")
    runner.say(
        f"wrote {target}, and opened it again: it is good\n"
        "  keep it off this host, and keep its passphrase in another place\n"
        "  export again after each change of .env or secrets/"
    )


def import_bundle(
    runner: Runner, root: Path, source: Path, passphrase: str, *, is_overwrite: bool
) -> None:
    """Write the bundle's files that are missing here; equal files stay as they are.

    Raises:
        Failure: for a file that cannot be opened, and for files that differ; nothing is written
            then.
    """
    files = bundle.decrypt(runner, source, passphrase)
    places = {name: bundle.place_of(root, files, name) for name in files}
    missing = [name for name, path in places.items() if not path.exists()]
    differing = [
        name
        for name in places
        if name not in missing and places[name].read_bytes() != files[name][1]
    ]
    if differing and not is_overwrite:
        names = ", ".join(differing)
        raise Failure(
            f"these files exist here with other contents than in the bundle: {names}",
            hints=[
                "nothing was written",
                "--overwrite takes the bundle's files: data that needs the present ones is lost",
            ],
            runbook=RUNBOOK,
        )
    _refuse_foreign_secrets(runner, root, files, differing)
    for name in (*missing, *differing):
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            mode = bundle.MODE_OF_FOLDER.get(str(folder), 0o755)
            runner.make_directory(bundle.place_of(root, files, str(folder)), mode)
        mode, content = files[name]
        runner.write(places[name], content.decode(), mode)
    same = len(files) - len(missing) - len(differing)
    runner.say(
        f"{len(missing)} files written, {len(differing)} replaced; {same} were equal already"
    )


def _refuse_foreign_secrets(
    runner: Runner, root: Path, files: bundle.Files, differing: Sequence[str]
) -> None:
    """Refuse a bundle of another stack on a host that has data.

    The scripts query the engine only if a secret would be replaced, or a fingerprint shows that
    there was data: a new host may have no engine yet.

    Raises:
        Failure: before anything is written.
    """
    secrets = {
        name: files[place][1].decode().removesuffix("\n")
        for name in logins.NAMES
        if (place := f"{bundle.FOLDER}/{name}") in files
    }
    for project in bundle.projects(root, files):
        is_replaced = any(f"{bundle.FOLDER}/{name}" in differing for name in secrets)
        if not is_replaced and not any(fingerprints.read(project, name) for name in secrets):
            continue
        stock = inventory.look(runner)
        foreign = [
            name
            for name, secret in secrets.items()
            if fingerprints.is_foreign(runner, project, stock, name, secret)
        ]
        if foreign:
            volumes = ", ".join(stock.volumes_of(project.name))
            raise Failure(
                f"this host has data of its own ({volumes}), and the bundle's "
                f"{', '.join(foreign)} cannot open it: its backups could no longer be read",
                hints=[
                    "nothing was written",
                    "import the bundle of this host's own stack",
                    "only if this data may be deleted: docker compose --profile '*' down --volumes",
                ],
                runbook=fingerprints.RUNBOOK,
            )


COMMAND = "export-secrets"
HELP = "pack secrets/ and .env into one encrypted file, or unpack it"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `export-secrets.sh`."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the bundle; keep it away from this host"
    )
    parser.add_argument(
        "--import",
        dest="is_import",
        action="store_true",
        help="write the files in FILE into this checkout",
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
        help="its first line is the passphrase; without it, the script asks at the terminal",
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `export-secrets.sh`; paths are relative to the caller's directory."""
    # The shell script changes into the checkout and passes the caller's directory in a variable.
    caller = Path(os.environ.get("CALLER_DIRECTORY", ""))
    file, secret = caller / arguments.file, arguments.passphrase_file
    passphrase = read_passphrase(secret and caller / secret, is_new=not arguments.is_import)
    if arguments.is_import:
        import_bundle(runner, root, file, passphrase, is_overwrite=arguments.overwrite)
    else:
        export_bundle(runner, load(root), file, passphrase, is_overwrite=arguments.overwrite)
    return 0
