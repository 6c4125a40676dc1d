"""The directories beside the database's: those that a restore makes, those it keeps, and the exchange of two.

`17`, the major version, is the database. `17.restored-TIME` is ready to take its place: its mark holds its own TIME,
which is how it is told from an old database that has got that name in an exchange which was cut off. `17.before-TIME`
is what was there.
"""

import ctypes
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backup.commands import Failed

DATA = Path("/var/lib/postgresql/data")
BESIDE = Path("/var/lib/postgresql/beside")
NAME = os.environ.get(
    "POSTGRES_MAJOR", "17"
)  # postgres/cluster.sh says which version the image is of
MARK = "slipway-restored"
AT_FDCWD = -100
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)


@dataclass
class State:
    """What there is: whether there is a database, the old ones with their bytes, and what was found half done."""

    has_database: bool
    old: dict[str, int] = field(default_factory=dict)
    tidied: list[str] = field(default_factory=list)

    def as_facts(self) -> dict[str, object]:
        """Return it for the scripts."""
        return asdict(self)


def tidy(root: Path) -> State:
    """Bring what a command that was killed left behind to its end, and return what there is."""
    tidied = []
    for folder in sorted(root.glob(f"{NAME}.*")):
        kind, _, stamp = folder.name.removeprefix(f"{NAME}.").partition("-")
        if kind == "restored" and not is_marked(folder, stamp):
            folder.rename(root / f"{NAME}.before-{stamp}")
            tidied.append(
                f"{folder.name} was the database before an exchange: it is {NAME}.before-{stamp} now"
            )
        elif kind in {"restoring", "restored", "failed"}:
            shutil.rmtree(folder)
            tidied.append(f"{folder.name} of a restore that was cut off is removed")
    old = {folder.name: _size(folder) for folder in sorted(root.glob(f"{NAME}.before-*"))}
    return State((root / NAME / "PG_VERSION").exists(), old, tidied)


def is_marked(folder: Path, stamp: str) -> bool:
    """Whether this is a restored database that never took the place of another one."""
    try:
        return (folder / MARK).read_text(encoding="utf-8") == stamp
    except OSError:
        return False


def finish(folder: Path, stamp: str) -> Path:
    """Give what is restored and checked its mark and its name."""
    (folder / MARK).write_text(stamp, encoding="utf-8")
    return folder.rename(folder.parent / f"{NAME}.restored-{stamp}")


def swap(root: Path, stamp: str) -> None:
    """Put the restored database into the place of the present one, which is kept; one rename, all or nothing."""
    new, present = root / f"{NAME}.restored-{stamp}", root / NAME
    if not is_marked(new, stamp):
        raise Failed(f"{new.name} is not there, or not whole", ["./scripts/restore.sh begins anew"])
    if not present.exists():
        new.rename(present)
    else:
        _exchange(new, present)
        new.rename(root / f"{NAME}.before-{stamp}")
    (present / MARK).unlink()
    os.sync()


def swap_back(root: Path, stamp: str) -> None:
    """Put the old database back; the restored one is kept as `17.failed-TIME` until the next restore."""
    old, present = root / f"{NAME}.before-{stamp}", root / NAME
    if not old.exists():
        raise Failed(f"{old.name} is not there: there was no database before")
    _exchange(old, present)
    old.rename(root / f"{NAME}.failed-{stamp}")
    os.sync()


def discard(root: Path, names: list[str]) -> None:
    """Delete old databases by name."""
    for name in names:
        if not name.startswith(f"{NAME}.before-") or "/" in name:
            raise Failed(f"{name} is not an old database")
        shutil.rmtree(root / name)


def _exchange(one: Path, other: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), EXCHANGE) != 0:
        raise Failed(
            f"{one.name} and {other.name} cannot be exchanged: {os.strerror(ctypes.get_errno())}"
        )


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*"))
