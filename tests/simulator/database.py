"""The volumes of Postgres and of backups: rows, applied migrations, and their secrets."""

from dataclasses import dataclass, field, replace

from stack.rules.migrations import Revision


@dataclass
class Database:
    """One data directory.

    Attributes:
        password: the password that the first start set.
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
        """Apply pending migrations, or only those before the first `post`; return the last line."""
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
    """The content of a volume; each service uses other fields.

    Attributes:
        link: the slot that the live link names, in `slots`.
        directories: the data directories of Postgres; one that serves is named after its version.
        prepared: the database that a restore created and has not swapped yet.
    """

    link: str = ""
    directories: dict[str, Database] = field(default_factory=dict)
    prepared: Database | None = None
    backups: Backups = field(default_factory=Backups)
