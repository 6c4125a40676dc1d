"""Migrations follow the rules of their phase; squawk detects table locks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from stack.rules import migrations

from tests.contracts.tree import ROOT, TOOLS, text

EXCLUDED = {
    "prefer-robust-stmts": "a revision is one transaction; IF NOT EXISTS would hide a half-run one",
    "require-lock-timeout": "api.migrate sets it on its session, before the first statement",
    "require-statement-timeout": "an index may take long: the lock timeout protects the traffic",
    "prefer-text-field": "the length must be limited; raising the limit needs no rewrite",
    "prefer-bigint-over-int": "a price in cents and a count of rows; keys are UUIDs",
    "prefer-identity": "the job queue's packaged schema uses serial",
}
VARIABLES = 'revision = "2026_01_01_0000"\ndown_revision = None\n'


def squawk(sql: str, excluded: set[str]) -> str:
    argv = [
        str(TOOLS / "squawk"),
        "--pg-version",
        "17.0",
        "--reporter",
        "gcc",
        "--exclude",
        ",".join(sorted(excluded)),
    ]
    done = subprocess.run(argv, input=sql, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout or done.returncode == 0, done.stderr
    return done.stdout


def sql_of_all() -> str:
    argv = [sys.executable, "-m", "api.migrate", "--sql", "base:head"]
    return subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def lint(root: Path, name: str, body: str) -> list[str]:
    folder = root / migrations.VERSIONS
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (folder / f"{name}.py").write_text(
        f"{VARIABLES}def upgrade() -> None:\n{lines}", encoding="utf-8"
    )
    return migrations.lint(root)


def test_the_migrations_are_one_line_in_an_order_that_a_deploy_can_apply() -> None:
    assert migrations.order_fault(migrations.revisions(ROOT)) == ""


def test_the_lint_finds_nothing() -> None:
    assert migrations.lint(ROOT) == []


def test_squawk_finds_nothing_in_the_sql() -> None:
    sql = sql_of_all()
    assert "CREATE TABLE items" in sql
    assert squawk(sql, set(EXCLUDED)) == ""


@pytest.mark.parametrize("rule", sorted(EXCLUDED.keys() - {"prefer-robust-stmts"}))
def test_a_rule_is_left_out_only_where_it_would_speak(rule: str) -> None:
    assert f" {rule} " in squawk(sql_of_all(), EXCLUDED.keys() - {rule})


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX ix ON items (name);", "require-concurrent-index-creation"),
        (
            "ALTER TABLE items ADD CONSTRAINT c CHECK (price_cents > 0);",
            "constraint-missing-not-valid",
        ),
        ("ALTER TABLE items ADD COLUMN at timestamptz NOT NULL;", "adding-required-field"),
        (
            "ALTER TABLE items ADD COLUMN made uuid DEFAULT gen_random_uuid();",
            "adding-field-with-default",
        ),
        ("ALTER TABLE items DROP COLUMN name;", "ban-drop-column"),
    ],
)
def test_squawk_sees_what_locks_a_table(sql: str, rule: str) -> None:
    assert f" {rule} " in squawk(sql, set(EXCLUDED))


CONCURRENT = "with op.get_context().autocommit_block():\n    "
INDEX = 'op.create_index("ix", "items", ["name"], postgresql_concurrently=True'
GOOD = {
    "a nullable column": 'op.add_column("items", sa.Column("colour", sa.Text(), nullable=True))',
    "a default": (
        'op.add_column("items", sa.Column("n", sa.Integer(), server_default="0", nullable=False))'
    ),
    "a concurrent index": f"{CONCURRENT}{INDEX}, if_not_exists=True)",
    "a new table and its index": (
        'op.create_table("new", c)\nop.create_index("ix", "new", ["c"])\nop.drop_table("new")'
    ),
    "a wider rule": 'op.alter_column("items", "name", nullable=True)',
    "SQL that adds": "op.execute(\"ALTER TYPE mood ADD VALUE 'calm'\")",
    "SQL that frees": 'op.execute(sa.text("ALTER TABLE items ALTER COLUMN name DROP NOT NULL"))',
}
IN_ANY_PHASE = {
    "CREATE INDEX": 'op.create_index("ix", "items", ["name"])',
    "concurrently, in a transaction": f"{INDEX}, if_not_exists=True)",
    "not to be repeated": f"{CONCURRENT}{INDEX})",
    "keyword": 'op.create_index("ix", table_name="items", columns=["name"])',
    "DROP INDEX": 'op.drop_index("ix", table_name="items")',
    "SQL index": 'op.execute("create unique index ix on items (name)")',
    "beside": (
        'op.add_column("items", sa.Column("n", sa.Text()))\n'
        f"{CONCURRENT}{INDEX}, if_not_exists=True)"
    ),
    "no value": 'op.add_column("items", sa.Column("n", sa.Integer(), nullable=False))',
    "batch": 'with op.batch_alter_table("items"):\n    pass',
}
IN_PRE = {
    "drop_table": 'op.drop_table("items")',
    "drop_column": 'op.drop_column("items", "name")',
    "drop_constraint": 'op.drop_constraint("c", "items")',
    "rename_table": 'op.rename_table("items", "things")',
    "not null": 'op.alter_column("items", "name", nullable=False)',
    "type": 'op.alter_column("items", "name", type_=sa.Text())',
    "new name": 'op.alter_column("items", "name", new_column_name="title")',
    "no default": 'op.alter_column("items", "created_at", server_default=None)',
    "a table's name that is computed": "op.drop_table(NAME)",
    "SQL DROP": 'op.execute("drop table items")',
    "SQL DROP in a text": 'op.get_bind().execute(sa.text(f"ALTER TABLE items DROP COLUMN {name}"))',
    "SQL RENAME": 'op.execute("ALTER TABLE items RENAME TO things")',
    "SQL TYPE": 'op.execute("ALTER TABLE items ALTER COLUMN name TYPE text")',
    "SQL SET DATA TYPE": 'op.execute("ALTER TABLE items ALTER name SET DATA TYPE text")',
    "SQL SET NOT NULL": 'op.execute("""ALTER TABLE items\n    ALTER COLUMN name SET NOT NULL""")',
    "SQL TRUNCATE": 'op.execute("TRUNCATE items")',
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("phase", ["pre", "post"])
def test_what_only_adds_passes(tmp_path: Path, phase: str, body: str) -> None:
    assert lint(tmp_path, f"2026_01_01_0000_{phase}_x", body) == []


@pytest.mark.parametrize("body", IN_ANY_PHASE.values(), ids=IN_ANY_PHASE)
@pytest.mark.parametrize("phase", ["pre", "post"])
def test_what_stops_the_traffic_is_a_fault_in_any_phase(
    tmp_path: Path, phase: str, body: str
) -> None:
    (fault,) = lint(tmp_path, f"2026_01_01_0000_{phase}_x", body)
    assert re.match(rf"api/migrations/versions/2026_01_01_0000_{phase}_x\.py:[45]: ", fault)


@pytest.mark.parametrize("body", IN_PRE.values(), ids=IN_PRE)
def test_what_takes_away_belongs_into_post(tmp_path: Path, body: str) -> None:
    (fault,) = lint(tmp_path, "2026_01_01_0000_pre_x", body)
    assert fault.startswith("api/migrations/versions/2026_01_01_0000_pre_x.py:4: ")
    assert fault.endswith("in a pre migration; move it to a post one") or "removes" in fault
    (tmp_path / migrations.VERSIONS / "2026_01_01_0000_pre_x.py").unlink()
    assert lint(tmp_path, "2026_01_01_0000_post_x", body) == []


def test_a_file_without_a_phase_is_a_fault_and_judged_as_pre(tmp_path: Path) -> None:
    faults = lint(tmp_path, "2026_01_01_0000_x", 'op.drop_table("items")')
    assert [fault.partition(".py:")[2].partition(":")[0] for fault in faults] == ["1", "4"]


def test_a_downgrade_may_take_away(tmp_path: Path) -> None:
    body = 'op.create_table("new", c)\n\n'
    lint(tmp_path, "2026_01_01_0000_pre_x", body)
    path = tmp_path / migrations.VERSIONS / "2026_01_01_0000_pre_x.py"
    path.write_text(
        path.read_text(encoding="utf-8") + 'def downgrade():\n    op.drop_table("items")\n',
        encoding="utf-8",
    )
    assert migrations.lint(tmp_path) == []


def test_the_image_says_which_migrations_it_knows() -> None:
    dockerfile = text("Dockerfile")
    assert "ARG MIGRATIONS\n" in dockerfile
    assert 'slipway.migrations="${MIGRATIONS}"' in dockerfile
