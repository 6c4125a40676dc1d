"""Which release this process runs, and which migrations its code knows.

Reads the revision files as text: Alembic itself would add a tenth of a second to every start.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VERSIONS = Path(__file__).parent / "migrations" / "versions"
REVISION = re.compile(r'^(revision|down_revision)\b[^=]*=\s*(?:"([^"]+)"|None)', re.MULTILINE)


@dataclass(frozen=True)
class Migrations:
    """The head that this code expects, and all revisions that it has a file for."""

    head: str
    known: frozenset[str]

    def accepts(self, applied: str | None) -> bool:
        """Tell whether this code can run on a database at `applied`.

        An unknown revision comes from a newer release, whose additive migrations ran before its switch.
        """
        return applied is not None and (applied == self.head or applied not in self.known)


@cache
def code_migrations() -> Migrations:
    pairs = [dict(REVISION.findall(path.read_text())) for path in sorted(VERSIONS.glob("*.py"))]
    known = frozenset(pair["revision"] for pair in pairs)
    heads = set(known) - {pair["down_revision"] for pair in pairs}
    if len(heads) != 1:
        raise RuntimeError(f"migrations must have one head, found {sorted(heads)}")
    return Migrations(head=heads.pop(), known=known)
