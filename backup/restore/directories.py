"""The directories beside the database's: those a restore makes or keeps, and the exchange of two.

`17`, the major version, is the database. `17.restored-TIME` is ready to replace it: its mark holds
its own TIME. An old database can get that name too, if an exchange is interrupted, but it has no
such mark. `17.before-TIME` is the database before a restore.
"""

import ctypes
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backup.failure import Failure

DATA = Path("/var/lib/postgresql/data")
BESIDE = Path("/var/lib/postgresql/beside")
NAME = os.environ.get("POSTGRES_MAJOR", "17")  # postgres/cluster.sh sets it from the image
MARK = "slipway-restored"
AT_FDCWD = -100
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)


@dataclass
class State:
    """Whether there is a database, the sizes of old ones in bytes, and what was tidied up."""

    has_database: bool
    old: dict[str, int] = field(default_factory=dict)
    tidied: list[str] = field(default_factory=list)

    def as_facts(self) -> dict[str, object]:
        """Return the state for the scripts."""
        return asdict(self)


def tidy(root: Path) -> State:
    """Finish or remove the directories of a command that was killed, and return the state."""
    tidied = []
    for folder in sorted(root.glob(f"{NAME}.*")):
        kind, _, stamp = folder.name.removeprefix(f"{NAME}.").partition("-")
        if kind == "restored" and not is_marked(folder, stamp):
            folder.rename(root / f"{NAME}.before-{stamp}")
            tidied.append(
                f"{folder.name} was the database before an exchange:"
                f" it is {NAME}.before-{stamp} now"
            )
        elif kind in {"restoring", "restored", "failed"}:
            shutil.rmtree(folder)
            tidied.append(f"{folder.name} of an interrupted restore is removed")
    old = {folder.name: _measure(folder) for folder in sorted(root.glob(f"{NAME}.before-*"))}
    return State((root / NAME / "PG_VERSION").exists(), old, tidied)


def is_marked(folder: Path, stamp: str) -> bool:
    """Whether this is a restored database that never replaced another database."""
    try:
        return (folder / MARK).read_text(encoding="utf-8") == stamp
    except OSError:
        return False


def finish(folder: Path, stamp: str) -> Path:
    """Give a restored and checked directory its mark and its name."""
    (folder / MARK).write_text(stamp, encoding="utf-8")
    return folder.rename(folder.parent / f"{NAME}.restored-{stamp}")


def swap(root: Path, stamp: str) -> None:
    """Replace the present database with the restored one in one rename, and keep the old one."""
    new, present = root / f"{NAME}.restored-{stamp}", root / NAME
    if not is_marked(new, stamp):
        raise Failure(
            f"{new.name} is not there, or not whole", ["./scripts/restore.sh begins anew"]
        )
    if not present.exists():
        new.rename(present)
    else:
        _exchange(new, present)
        new.rename(root / f"{NAME}.before-{stamp}")
    (present / MARK).unlink()
    os.sync()


def swap_back(root: Path, stamp: str) -> None:
    """Put the old database back; keep the restored one as `17.failed-TIME` until the next restore.

    Raises:
        Failure: when there is no old database of that time.
    """
    old, present = root / f"{NAME}.before-{stamp}", root / NAME
    if not old.exists():
        raise Failure(f"{old.name} is not there: there was no database before")
    _exchange(old, present)
    old.rename(root / f"{NAME}.failed-{stamp}")
    os.sync()


def discard(root: Path, names: list[str]) -> None:
    """Delete old databases by name."""
    for name in names:
        if not name.startswith(f"{NAME}.before-") or "/" in name:
            raise Failure(f"{name} is not an old database")
        shutil.rmtree(root / name)


def _exchange(first: Path, second: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(AT_FDCWD, bytes(first), AT_FDCWD, bytes(second), EXCHANGE) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise Failure(f"{first.name} and {second.name} cannot be exchanged: {reason}")


def _measure(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*"))
