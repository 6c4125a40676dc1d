"""Postgres' volume and the backups in theirs: rows, applied migrations, and the keys to them."""

from dataclasses import dataclass, field, replace

from stack.rules.migrations import Revision


@dataclass
class Database:
    """One data directory.

    Attributes:
        password: the password that opens it, which the first start set.
        rows: the rows that clients wrote; each is acknowledged before the next is sent.
        applied: the migrations that were applied, in their order.
        has_first_user: whether the service's first user exists.
    """

    password: str
    rows: int = 0
    applied: list[str] = field(default_factory=list)
    has_first_user: bool = False

    @property
    def head(self) -> str:
        """The newest migration."""
        return self.applied[-1] if self.applied else ""

    def migrate(self, known: list[Revision], *, is_pre_only: bool) -> str:
        """Apply what is pending, at most up to the first `post`; return the line of `migrate`."""
        former = self.head
        names = [revision.identifier for revision in known]
        if former and former not in names:
            return f"migrated: nothing to do, the database is ahead of this release, at {former}"
        for revision in known[names.index(former) + 1 if former else 0 :]:
            if is_pre_only and revision.phase == "post":
                break
            self.applied.append(revision.identifier)
        return f"migrated: {former or 'empty'} -> {self.head or 'empty'}"

    def copy(self) -> "Database":
        """Return a copy, as a backup or a restore makes it."""
        return replace(self, applied=list(self.applied))


@dataclass
class Backups:
    """The repository of backups, which only its key opens."""

    key: str = ""
    kept: list[Database] = field(default_factory=list)


@dataclass
class Volume:
    """The content of a volume, by what its service keeps there.

    Attributes:
        link: the slot that the live link names, in `slots`.
        directories: the data directories of Postgres; one that serves is named after its version.
        prepared: the database that a restore has made and not yet swapped.
    """

    link: str = ""
    directories: dict[str, Database] = field(default_factory=dict)
    prepared: Database | None = None
    backups: Backups = field(default_factory=Backups)
