"""A release's migrations: their order, their phases, the pending ones, and a lint.

The module reads the revision files without running them, so that it works on a host without
packages; it never queries the database.

`pre` runs before the switch, while the former release serves: it may only add. `post` runs when
the old slot is retired: it may remove.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from stack.failure import Failure

RUNBOOK = "migration-failed"
VERSIONS = Path("api/migrations/versions")
FORM = re.compile(r"(\d{4}_\d{2}_\d{2}_\d{4})_(pre|post)_([a-z0-9]+(?:_[a-z0-9]+)*)")
ENTRY = re.compile(r"(\d{4}_\d{2}_\d{2}_\d{4}):(pre|post)")
NOTHING = ("", "empty")  # the head of a database without migrations


@dataclass(frozen=True)
class Revision:
    """A migration; one that was read from an image's label has no name."""

    identifier: str
    phase: str
    name: str = field(default="", compare=False)


def revisions(root: Path) -> list[Revision]:
    """Return the checkout's migrations in the order in which they are applied."""
    known: dict[str, Revision] = {}
    parents: dict[str, str | None] = {}
    for path in _paths(root):
        form = FORM.fullmatch(path.stem)
        identifier, parent = _links(path)
        if not form or form[1] != identifier:
            raise Failure(
                f"{VERSIONS / path.name} holds revision {identifier or 'none'}: "
                "the name is not of the form",
                hints=[
                    "call it YYYY_MM_DD_HHMM_<pre|post>_<what>.py, with the date as its revision"
                ],
                runbook=RUNBOOK,
            )
        if identifier in known:
            raise Failure(
                f"two migrations are called {identifier}",
                hints=["give one of them another minute"],
                runbook=RUNBOOK,
            )
        known[identifier], parents[identifier] = Revision(identifier, form[2], form[3]), parent
    return [known[identifier] for identifier in _chain(parents)]


def head(root: Path) -> str:
    """Return the newest revision of the checkout's migrations, on which no other is based."""
    return revisions(root)[-1].identifier


def _paths(root: Path) -> list[Path]:
    return sorted((root / VERSIONS).glob("*.py"))


def _links(path: Path) -> tuple[str, str | None]:
    """Return the revision and its parent."""
    try:
        return _links_in(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise Failure(
            f"{VERSIONS / path.name} is not Python: {error}",
            hints=["correct the migration"],
            runbook=RUNBOOK,
        ) from None


# A command lists the checkout's migrations several times. Chosen: more than most services have.
@lru_cache(maxsize=1024)
def _links_in(text: str) -> tuple[str, str | None]:
    assigned: dict[str, ast.expr] = {}
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assigned[name] = value
    parent = assigned.get("down_revision", ast.Constant(None))
    return _text(assigned.get("revision")), None if _is_constant(parent, None) else _text(
        parent
    ) or ast.unparse(parent)


def _chain(parents: dict[str, str | None]) -> list[str]:
    """Return the revisions from the first to the head; refuse more than one chain."""
    hints = ["set down_revision of each migration but the first to the migration before it"]
    heads = sorted(parents.keys() - set(parents.values()))
    if len(heads) != 1:
        raise Failure(
            f"the migrations have {len(heads)} heads: {', '.join(heads) or 'none'}",
            hints=hints,
            runbook=RUNBOOK,
        )
    chain: list[str] = []
    at: str | None = heads[0]
    while at is not None:
        if at not in parents:
            raise Failure(
                f"migration {chain[-1]} builds on {at}, which does not exist",
                hints=hints,
                runbook=RUNBOOK,
            )
        chain.append(at)
        at = parents[at]
    apart = sorted(parents.keys() - set(chain))
    if apart:
        raise Failure(
            f"the migrations do not form one chain: {', '.join(apart)} are not in it",
            hints=hints,
            runbook=RUNBOOK,
        )
    return chain[::-1]


def label(known: Sequence[Revision]) -> str:
    """Return the text of an image's label that lists its migrations."""
    return ",".join(f"{revision.identifier}:{revision.phase}" for revision in known)


def parse_label(value: str) -> list[Revision]:
    """Parse the label of an image; an older image without this label has no migrations."""
    entries = [entry for entry in value.strip().split(",") if entry]
    forms = [ENTRY.fullmatch(entry) for entry in entries]
    for entry, form in zip(entries, forms, strict=True):
        if not form:
            raise Failure(
                f"the label slipway.migrations holds '{entry}'",
                hints=["build the image with ./scripts/deploy.sh, which writes the label"],
                runbook=RUNBOOK,
            )
    return [Revision(form[1], form[2]) for form in forms if form]


def pending(known: Sequence[Revision], database_head: str) -> list[Revision]:
    """Return the migrations of a release that are pending in a database at this head."""
    if database_head in NOTHING:
        return list(known)
    return list(
        known[
            _place(known, database_head, f"database is at {database_head}, which this release")
            + 1 :
        ]
    )


def order_fault(waiting: Sequence[Revision]) -> str:
    """Return the fault if a `pre` follows a `post`: no switch can be between them."""
    phases = [revision.phase for revision in waiting]
    if "post" not in phases or "pre" not in phases[phases.index("post") :]:
        return ""
    first = phases.index("post")
    late = waiting[phases.index("pre", first)]
    former = waiting[first].identifier
    return f"{late.identifier} is a pre migration that follows {former}, a post migration"


def list_contracting(
    newer: Sequence[Revision], target_head: str, database_head: str
) -> list[Revision]:
    """Return the `post` migrations of a database that a release with this head does not know."""
    at = _place(newer, database_head, f"database is at {database_head}, which the newer release")
    since = _place(
        newer, target_head, f"the target's head is {target_head}, which the newer release"
    )
    return [revision for revision in newer[since + 1 : at + 1] if revision.phase == "post"]


def _place(known: Sequence[Revision], identifier: str, subject: str) -> int:
    places = [place for place, revision in enumerate(known) if revision.identifier == identifier]
    if not places:
        raise Failure(
            f"{subject} does not know",
            hints=[
                "take a release that does: ./scripts/status.sh names the database's head "
                "and the live release"
            ],
            runbook="rollback-refused",
        )
    return places[0]


# The argument of each operation that names the table: its position and its keyword.
TABLE = {
    "drop_table": (0, "table_name"),
    "drop_column": (0, "table_name"),
    "drop_constraint": (1, "table_name"),
    "rename_table": (0, "old_table_name"),
    "alter_column": (0, "table_name"),
    "add_column": (0, "table_name"),
    "create_index": (1, "table_name"),
    "drop_index": (1, "table_name"),
}
TAKES_AWAY = {"drop_table", "drop_column", "drop_constraint", "rename_table"}
INDEX = {"create_index": "if_not_exists", "drop_index": "if_exists"}
SQL = {"execute", "exec_driver_sql"}
SQL_TAKES_AWAY = re.compile(
    r"\b(?:DROP\b(?!\s+(?:NOT\s+NULL|DEFAULT)\b)|RENAME\b|TRUNCATE\b|SET\s+NOT\s+NULL\b"
    r"|ALTER\s+(?:COLUMN\s+)?\S+\s+(?:SET\s+DATA\s+)?TYPE\b)",
    re.IGNORECASE,
)
SQL_INDEX = re.compile(
    r"\b(?:CREATE\s+(?:UNIQUE\s+)?|DROP\s+)INDEX\b(?!\s+CONCURRENTLY\b)", re.IGNORECASE
)
NO_OPERATION = {"get_context", "get_bind", "f"}


def lint(root: Path) -> list[str]:
    """Return the violations of the rules of the phases, one per line.

    (!) The lint reads only literals. It does not detect computed SQL or SQL from a file, tables
    with computed names (they count as existing tables), a default that rewrites the table, a
    constraint or unique index that refuses the writes of the former release, or long UPDATEs.
    squawk and the N-1 test detect some of these.
    """
    faults = []
    for path in _paths(root):
        form = FORM.fullmatch(path.stem)
        if not form:
            faults.append(
                f"{VERSIONS / path.name}:1: the name has no phase: "
                "YYYY_MM_DD_HHMM_<pre|post>_<what>.py"
            )
        tree = ast.parse(path.read_text(encoding="utf-8"))
        rules = _Rules(form[2] if form else "pre", tree)
        rules.visit(tree)
        faults += [f"{VERSIONS / path.name}:{line}: {what}" for line, what in sorted(rules.faults)]
    return faults


class _Rules(ast.NodeVisitor):
    """Collects the faults of a file, each with its line."""

    def __init__(self, phase: str, tree: ast.Module) -> None:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self.faults: list[tuple[int, str]] = []
        self._phase = phase
        self._created = {
            _text(call.args[0]) for call in calls if _name(call) == "create_table" and call.args
        }
        self._has_block = any(_name(call) == "autocommit_block" for call in calls)
        self._in_block = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name != "downgrade":  # never run: a rollback undoes no migration
            self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        outside = self._in_block
        calls = [
            each.context_expr for each in node.items if isinstance(each.context_expr, ast.Call)
        ]
        self._in_block = outside or any(_name(call) == "autocommit_block" for call in calls)
        self.generic_visit(node)
        self._in_block = outside

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node)
        for fault in self._judge(node, name):
            self.faults.append((node.lineno, fault))
        is_operation = ast.unparse(node.func) == f"op.{name}" and name not in NO_OPERATION
        if is_operation and self._has_block and not self._in_block:
            fault = (
                f"op.{name} is in one migration with an autocommit_block, which commits it alone: "
                "an interrupted run could not be repeated; put it into its own migration"
            )
            self.faults.append((node.lineno, fault))
        self.generic_visit(node)

    def _judge(self, node: ast.Call, name: str) -> Iterator[str]:
        if name == "batch_alter_table":
            yield "op.batch_alter_table hides its table from this lint; call each operation on op"
        if name in SQL:
            yield from self._judge_sql(" ".join(_strings(node)))
        if name not in TABLE or self._is_new(node, name):
            return
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in INDEX:
            yield from self._judge_index(name, options)
        if name == "add_column" and _needs_value(node):
            yield (
                "op.add_column adds a NOT NULL column without server_default: "
                "existing rows would have no value"
            )
        if self._phase != "pre":
            return
        if name in TAKES_AWAY:
            yield (
                f"op.{name} in a pre migration removes a thing that the running release uses; "
                "move it to a post one"
            )
        if name == "alter_column":
            changed: list[str] = [key for key in ("new_column_name", "type_") if key in options]
            changed += ["nullable=False"] if _is_constant(options.get("nullable"), False) else []
            changed += (
                ["server_default=None"] if _is_constant(options.get("server_default"), None) else []
            )
            if changed:
                words = ", ".join(changed)
                yield f"op.alter_column with {words} in a pre migration; move it to a post one"

    def _judge_index(self, name: str, options: dict[str | None, ast.expr]) -> Iterator[str]:
        if not (self._in_block and _is_constant(options.get("postgresql_concurrently"), True)):
            yield (
                f"op.{name} on a table that is in use: postgresql_concurrently=True, "
                "inside an autocommit_block"
            )
        elif not _is_constant(options.get(INDEX[name]), True):
            yield (
                f"op.{name} without {INDEX[name]}=True cannot be repeated after an interrupted run"
            )

    def _judge_sql(self, sql: str) -> Iterator[str]:
        if SQL_INDEX.search(sql):
            yield "SQL builds or drops an index without CONCURRENTLY"
        match = SQL_TAKES_AWAY.search(sql)
        if match and self._phase == "pre":
            words = " ".join(match[0].upper().split())
            yield f"SQL with {words} in a pre migration; move it to a post one"

    def _is_new(self, node: ast.Call, name: str) -> bool:
        place, keyword = TABLE[name]
        named = [given.value for given in node.keywords if given.arg == keyword]
        argument = node.args[place] if len(node.args) > place else named[0] if named else None
        return argument is not None and _text(argument) in self._created - {""}


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _strings(node: ast.AST) -> list[str]:
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _needs_value(node: ast.Call) -> bool:
    """Whether a call adds a NOT NULL column without a default."""
    keywords = {
        k.arg: k.value
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
        for k in part.keywords
    }
    is_generated = any(
        _name(part) in {"Identity", "Computed"}
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
    )
    has_default = "server_default" in keywords and not _is_constant(
        keywords["server_default"], None
    )
    is_required = _is_constant(keywords.get("nullable"), False) or _is_constant(
        keywords.get("primary_key"), True
    )
    return is_required and not has_default and not is_generated
