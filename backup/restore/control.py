"""Makes the control file of a database that is lost: without one pgBackRest fetches no WAL, not even to check it."""

import re
import shutil
import struct
from pathlib import Path

from backup import offsite, pgbackrest
from backup.commands import Done, Failed, run

FOLDER = Path("/tmp/control")  # noqa: S108  a tmpfs of this container alone
MAKE_SECONDS = 60
PG_PATH = re.compile(r"^pg1-path=(.*)$", re.MULTILINE)


def ensure(repository: int, installation: Path = offsite.INSTALLATION) -> None:
    """Have pgBackRest look at a stand-in where the server's directory has no control file; nothing else is in it.

    Its number is that of the system the repository is of, which is what pgBackRest compares.

    Raises:
        Failed: where the repository or Postgres' programs say no.
    """
    text = installation.read_text(encoding="utf-8")
    found = PG_PATH.search(text)
    if not found or (Path(found[1]) / "global/pg_control").is_file():
        return
    _make(int(pgbackrest.stanza(repository)["db"][-1]["system-id"]))
    replaced = PG_PATH.sub(f"pg1-path={FOLDER}", text)
    for place in (installation, offsite.FOLDER / installation.name):
        if place.exists():
            place.write_text(replaced, encoding="utf-8")


def _make(system: int) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    initdb = ["initdb", f"--pgdata={FOLDER}", "--username=postgres", "--wal-segsize=1", "--no-sync"]
    _must(run([*initdb, "--auth=reject"], timeout=MAKE_SECONDS))
    with (FOLDER / "global/pg_control").open("r+b") as file:
        file.write(struct.pack("=Q", system))  # its first field
    # Writes the checksum anew over what is there.
    _must(run(["pg_resetwal", "--force", f"--pgdata={FOLDER}"], timeout=MAKE_SECONDS))
    for other in FOLDER.iterdir():
        if other.name != "global":
            shutil.rmtree(other) if other.is_dir() else other.unlink()


def _must(done: Done) -> None:
    if done.code != 0:
        raise Failed(f"no stand-in for the lost control file could be made: {done.reason}")
