"""A release's migrations: their order, the pending ones, and those between two heads."""

from pathlib import Path

import pytest
from stack.failure import Failure
from stack.rules import migrations
from stack.rules.migrations import Revision

FIRST = "2026_01_01_0000"
ADD = Revision("2026_02_01_0000", "pre", "add")
DROP = Revision("2026_03_01_0000", "post", "drop")
LATE = Revision("2026_04_01_0000", "pre", "late")
KNOWN = [Revision(FIRST, "pre", "first"), ADD, DROP]


def write(
    root: Path, stem: str, parent: str | None, revision: str = "", *, is_annotated: bool = False
) -> None:
    kinds = (": str", ": str | None") if is_annotated else ("", "")
    builds_on = "None" if parent is None else f'"{parent}"'
    text = (
        f'revision{kinds[0]} = "{revision or stem[:15]}"\ndown_revision{kinds[1]} = {builds_on}\n'
    )
    (root / migrations.VERSIONS / f"{stem}.py").write_text(text, encoding="utf-8")


def test_the_order_is_that_of_the_links_not_of_the_names(bare: Path) -> None:
    write(bare, "2026_03_01_0000_pre_second", FIRST)
    write(bare, "2026_02_01_0000_post_third", "2026_03_01_0000", is_annotated=True)
    assert [(r.identifier, r.phase, r.name) for r in migrations.revisions(bare)] == [
        (FIRST, "pre", "first"),
        ("2026_03_01_0000", "pre", "second"),
        ("2026_02_01_0000", "post", "third"),
    ]
    assert migrations.head(bare) == "2026_02_01_0000"


def test_two_heads_are_refused_by_name(bare: Path) -> None:
    write(bare, "2026_02_01_0000_pre_a", FIRST)
    write(bare, "2026_02_02_0000_pre_b", FIRST)
    with pytest.raises(Failure, match="2 heads: 2026_02_01_0000, 2026_02_02_0000"):
        migrations.revisions(bare)


def test_no_migration_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="0 heads: none"):
        migrations.head(tmp_path)


def test_a_missing_link_is_refused(bare: Path) -> None:
    write(bare, f"{FIRST}_pre_first", "2025_01_01_0000")
    with pytest.raises(Failure, match=f"{FIRST} builds on 2025_01_01_0000, which does not exist"):
        migrations.revisions(bare)


def test_a_circle_beside_the_line_is_refused(bare: Path) -> None:
    write(bare, "2026_02_01_0000_pre_a", "2026_02_02_0000")
    write(bare, "2026_02_02_0000_pre_b", "2026_02_01_0000")
    with pytest.raises(Failure, match="2026_02_01_0000, 2026_02_02_0000 are not in it"):
        migrations.revisions(bare)


def test_one_revision_in_two_files_is_refused(bare: Path) -> None:
    write(bare, f"{FIRST}_pre_again", None)
    with pytest.raises(Failure, match=f"two migrations are called {FIRST}"):
        migrations.revisions(bare)


@pytest.mark.parametrize(
    ("stem", "revision"),
    [
        ("add_price", "2026_02_01_0000"),
        ("2026_02_01_0000_add_price", ""),
        ("2026_02_01_0000_during_add_price", ""),
        ("2026_02_01_pre_add_price", ""),
        ("2026_02_01_0000_pre_add_price", "2026_02_01_0001"),
        ("2026_02_01_0000_pre_", ""),
    ],
)
def test_a_name_against_the_form_is_refused(bare: Path, stem: str, revision: str) -> None:
    write(bare, stem, FIRST, revision)
    with pytest.raises(Failure, match="not of the form"):
        migrations.revisions(bare)


def test_a_label_says_order_and_phase_and_is_read_back() -> None:
    assert migrations.label(KNOWN) == "2026_01_01_0000:pre,2026_02_01_0000:pre,2026_03_01_0000:post"
    assert migrations.parse_label(migrations.label(KNOWN) + "\n") == KNOWN


def test_an_image_without_a_label_knows_nothing() -> None:
    assert migrations.parse_label("") == []


@pytest.mark.parametrize("value", ["2026_01_01_0000", "2026_01_01_0000:pre,x", "<no value>"])
def test_a_label_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(Failure, match=r"label slipway\.migrations holds"):
        migrations.parse_label(value)


@pytest.mark.parametrize(
    ("head", "waiting"),
    [
        ("", KNOWN),
        ("empty", KNOWN),
        (FIRST, [ADD, DROP]),
        (ADD.identifier, [DROP]),
        (DROP.identifier, []),
    ],
)
def test_what_stands_behind_the_database_s_head_is_pending(
    head: str, waiting: list[Revision]
) -> None:
    assert migrations.pending(KNOWN, head) == waiting


def test_a_database_that_the_release_does_not_know_is_refused() -> None:
    with pytest.raises(
        Failure, match="database is at 2099_01_01_0000, which this release does not know"
    ):
        migrations.pending(KNOWN, "2099_01_01_0000")


@pytest.mark.parametrize(
    "waiting", [[], [ADD], [DROP], [ADD, LATE, DROP], [DROP, Revision("x", "post")]]
)
def test_first_pre_then_post_is_in_order(waiting: list[Revision]) -> None:
    assert migrations.order_fault(waiting) == ""


@pytest.mark.parametrize("waiting", [[DROP, LATE], [ADD, DROP, LATE], [DROP, LATE, DROP]])
def test_a_pre_behind_a_post_is_a_fault_that_names_both(waiting: list[Revision]) -> None:
    fault = migrations.order_fault(waiting)
    assert (
        fault == "2026_04_01_0000 is a pre migration that follows 2026_03_01_0000, a post migration"
    )


@pytest.mark.parametrize(
    ("target", "database", "between"),
    [
        (ADD.identifier, DROP.identifier, [DROP]),
        (FIRST, ADD.identifier, []),
        (FIRST, LATE.identifier, [DROP]),
        (DROP.identifier, LATE.identifier, []),
        (LATE.identifier, FIRST, []),
    ],
)
def test_a_rollback_is_told_which_post_migrations_lie_between(
    target: str, database: str, between: list[Revision]
) -> None:
    assert migrations.list_contracting([*KNOWN, LATE], target, database) == between


@pytest.mark.parametrize(
    ("target", "database"), [("2099_01_01_0000", FIRST), (FIRST, "2099_01_01_0000")]
)
def test_a_rollback_between_heads_that_nobody_knows_is_refused(target: str, database: str) -> None:
    with pytest.raises(Failure, match="2099_01_01_0000, which the newer release does not know"):
        migrations.list_contracting(KNOWN, target, database)
