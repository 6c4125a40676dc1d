"""The migrations that this code knows, and whether it can run on a database.

The module reads the revision files as text: Alembic would add a tenth of a second to every start.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"
REVISION = re.compile(r'^(revision|down_revision)\b[^=]*=\s*(?:"([^"]+)"|None)', re.MULTILINE)


@dataclass(frozen=True)
class Migrations:
    """The migrations of this code.

    Args:
        head: the newest revision.
        known: every revision that has a file.
        enough: the revisions that a database may be at, because only `post` revisions follow them.
    """

    head: str
    known: frozenset[str]
    enough: frozenset[str] = frozenset()

    def accepts(self, applied: str | None) -> bool:
        """Tell whether this code can run on a database whose head is `applied`.

        An unknown revision comes from a newer release, whose `pre` migrations ran before its switch
        and only added. A `post` migration runs when the previous release is retired, long after
        this release began to serve.
        """
        return applied is not None and (
            applied == self.head or applied in self.enough or applied not in self.known
        )


def phase_of(path: Path) -> str:
    """Return `pre` or `post`, from the name of a revision's file."""
    return path.stem.split("_")[4]


@cache
def code_migrations() -> Migrations:
    """Read the revision files.

    Raises:
        RuntimeError: if they have no head, or more than one.
    """
    paths = sorted(VERSIONS.glob("*.py"))
    links = [dict(REVISION.findall(path.read_text())) for path in paths]
    parents = {link["revision"]: link["down_revision"] for link in links}
    phases = {link["revision"]: phase_of(path) for link, path in zip(links, paths, strict=True)}
    heads = parents.keys() - set(parents.values())
    if len(heads) != 1:
        raise RuntimeError(f"migrations must have one head, found {sorted(heads)}")
    head = at = heads.pop()
    enough = {head}
    while phases[at] == "post" and parents[at]:
        at = parents[at]
        enough.add(at)
    return Migrations(head=head, known=frozenset(parents), enough=frozenset(enough))
