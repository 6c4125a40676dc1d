"""Runs migrations under load: blocked, failing, killed, and ten at once."""

import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.rules import migrations

from tests.conftest import Figure
from tests.stack import test_journey as journey
from tests.stack.harness import ROOT, Stack, wait_until, write_revision
from tests.stack.load import Load

pytestmark = pytest.mark.drill

HEAD = migrations.head(ROOT)
MOST_WORSE_SECONDS = 0.7  # the promise, which includes the lock timeout of 0.5 s
TRIES = 3  # a measurement that another program disturbed is repeated
ONE, TWO = "2099_01_01_0000", "2099_01_01_0001"
COLUMN = 'op.add_column("items", sa.Column("drill_note", sa.Text(), nullable=True))'
TABLE = 'op.create_table("drill_notes", sa.Column("id", sa.Integer(), primary_key=True))'
INDEX = """with op.get_context().autocommit_block():
    options = {"postgresql_concurrently": True, "if_not_exists": True}
    op.create_index("drill_ix", "items", ["name"], **options)"""
SLOW_INDEX = """with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS drill_ix ON items (drill_slow(name))")"""
UNIQUE_INDEX = """with op.get_context().autocommit_block():
    op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS drill_ix ON items ((1))")"""
SLOW = """create or replace function drill_slow(text) returns text language plpgsql immutable as
    $$ begin perform pg_sleep(%s); return $1; end $$"""
ROWS = """insert into items (id, owner_id, name)
    select gen_random_uuid(), (select id from users limit 1), 'drill'
    from generate_series(1, 400)"""
INVALID = "select count(*) from pg_index where not indisvalid"
APPLIED = "select version_num from alembic_version"
UNDO = rf"""drop index if exists drill_ix;
    alter table items drop column if exists drill_note;
    drop function if exists drill_slow;
    do $$ declare it text; begin
        for it in select tablename from pg_tables where tablename like 'drill\_%' loop
            execute 'drop table ' || it;
        end loop;
    end $$;
    delete from items where name = 'drill';
    update alembic_version set version_num = '{HEAD}'"""


@pytest.fixture(autouse=True)
def _same_schema_afterwards(stack: Stack) -> Iterator[None]:
    assert stack.sql(APPLIED) == HEAD
    yield
    stack.sql(UNDO)


def variant(
    stack: Stack,
    folder: Path,
    name: str,
    *bodies: str,
    phases: tuple[str, ...] = ("pre", "pre", "pre"),
) -> str:
    """Build the live release with added revisions, each a body of `upgrade`; return its tag."""
    context = folder / name
    context.mkdir()
    parent = HEAD
    for number, (body, phase) in enumerate(zip(bodies, phases, strict=False)):
        revision = f"2099_01_01_000{number}"
        write_revision(context, revision, parent, phase, body)
        parent = revision
    dockerfile = f"FROM {stack.image}:blue\nCOPY *.py /app/api/migrations/versions/\n"
    (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    stack.run("docker", "build", "--quiet", "--tag", f"{stack.image}:variant-{name}", str(context))
    return f"variant-{name}"


def argv(*command: str, budget: float = 30, name: str = "") -> list[str]:
    named = ["--name", name] if name else []
    run = ["docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", *named]
    return [*run, "-e", f"SLIPWAY_MIGRATE_BUDGET_SECONDS={budget}", "migrate", *command]


def migrate(
    stack: Stack, tag: str, *command: str, budget: float = 30
) -> subprocess.CompletedProcess[str]:
    return stack.run(
        *argv(*command, budget=budget), check=False, MIGRATE_TAG=tag, MIGRATE_CONFIRM="yes"
    )


def closing(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a migration; check that it exited with 0."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@contextmanager
def killed_when(stack: Stack, tag: str, condition: str) -> Iterator[None]:
    """Start a migration and kill its container once a query returns a row."""
    name = f"{stack.project}-killed"
    environment = {**stack.environment, "MIGRATE_TAG": tag, "MIGRATE_CONFIRM": "yes"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        argv(name=name), cwd=stack.root, env=environment, stdout=quiet, stderr=quiet
    )
    try:
        wait_until(lambda: stack.sql(condition), 60, "the migration runs")
        yield
    finally:
        stack.run("docker", "kill", "--signal", "KILL", name, check=False)
        process.wait(30)
    assert process.returncode == 137


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


def test_the_database_has_the_shape_of_the_models(stack: Stack) -> None:
    assert closing(migrate(stack, "blue", "python", "-m", "api.migrate", "--check")) == (
        "the database has the shape of the models"
    )


def test_the_image_knows_its_migrations_and_their_phases(stack: Stack) -> None:
    form = '{{index .Config.Labels "slipway.migrations"}}'
    value = stack.run("docker", "image", "inspect", "--format", form, f"{stack.image}:blue").stdout
    assert migrations.parse_label(value) == migrations.revisions(ROOT)


def test_drift_is_noticed(stack: Stack) -> None:
    stack.sql("alter table items add column drill_note text")
    done = migrate(stack, "blue", "python", "-m", "api.migrate", "--check")
    assert done.returncode == 1
    assert "drill_note" in done.stderr


@pytest.mark.alone  # other stacks would change the compared percentiles
@pytest.mark.counts_losses
def test_an_idle_transaction_ends_the_migration_cleanly_and_the_traffic_hardly_notices(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    tag = variant(stack, tmp_path, "blocked", COLUMN)
    load = Load(stack, rate=50)
    with load.running() as report, stack.holding("select from items limit 0") as pid:
        for _ in range(TRIES):
            before = len(report.latencies)
            report.wait_for_answers(400)
            begun = len(report.latencies)
            done = migrate(stack, tag, budget=8)
            steady, during = p99(report.latencies[before:begun]), p99(report.latencies[begun:])
            if during - steady <= MOST_WORSE_SECONDS:
                break
    figure(
        "migration blocked by an idle transaction: "
        f"{done.stdout.count('migration_lock_wait') + 1} attempts in 8 s, "
        f"{report.sent} requests, {len(report.failures)} failed, p99 {steady * 1000:.0f} "
        "ms steady, "
        f"{during * 1000:.0f} ms during, longest gap {report.longest_gap:.2f} s"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    blocked = (
        f"error: migration blocked for 8 s by pid {pid} (drill, idle in transaction, transaction "
    )
    assert blocked in done.stderr, done.stderr
    assert " s old): select from items" in done.stderr, done.stderr
    assert "RUNBOOK: docs/runbook.md#migration-failed" in done.stderr
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)
    assert during - steady <= MOST_WORSE_SECONDS
    assert stack.sql(APPLIED) == HEAD
    assert closing(migrate(stack, tag)) == f"migrated: {HEAD} -> {ONE}"


@pytest.mark.counts_losses
def test_a_migration_that_fails_half_way_leaves_a_clean_start_for_the_next(
    stack: Stack, tmp_path: Path
) -> None:
    broken = variant(stack, tmp_path, "broken", COLUMN, f'{TABLE}\nop.execute("select 1 / 0")')
    corrected = variant(stack, tmp_path, "corrected", COLUMN, TABLE)
    load = Load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: len(report.latencies) > 20, 30, "the load is under way")
        done = migrate(stack, broken)
        assert done.returncode == 1
        assert "error: migration failed: division by zero" in done.stderr
        assert stack.sql(APPLIED) == ONE
        assert stack.sql("select to_regclass('drill_notes')") == ""
        assert closing(migrate(stack, corrected)) == f"migrated: {ONE} -> {TWO}"
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)


def test_an_index_that_cannot_be_built_is_not_left_behind(stack: Stack, tmp_path: Path) -> None:
    stack.sql(ROWS)
    done = migrate(stack, variant(stack, tmp_path, "unique", UNIQUE_INDEX))
    assert done.returncode == 1
    assert "could not create unique index" in done.stderr
    assert "invalid_index_dropped" in done.stdout + done.stderr
    assert stack.sql(INVALID) == "0"
    assert stack.sql("select to_regclass('drill_ix')") == ""


@pytest.mark.counts_losses
def test_a_migration_killed_in_its_transaction_leaves_nothing(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    slow = variant(stack, tmp_path, "slow", f'{TABLE}\nop.execute("select pg_sleep(60)")')
    load = Load(stack, rate=30)
    with load.running() as report:
        wait_until(lambda: len(report.latencies) > 20, 30, "the load is under way")
        with killed_when(
            stack, slow, "select 1 from pg_stat_activity where query = 'select pg_sleep(60)'"
        ):
            pass
        started = time.monotonic()
        assert (
            closing(migrate(stack, variant(stack, tmp_path, "quick", TABLE)))
            == f"migrated: {HEAD} -> {ONE}"
        )
        figure(
            "migration killed in its transaction: the next one was done "
            f"{time.monotonic() - started:.1f} s later"
        )
    assert report.failures == []


@pytest.mark.counts_losses
def test_a_migration_killed_while_it_builds_an_index_leaves_no_invalid_one(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    stack.sql(SLOW % 0.1)
    stack.sql(ROWS)
    tag = variant(stack, tmp_path, "index", SLOW_INDEX)
    load = Load(stack, rate=20)
    with load.running() as report:
        wait_until(lambda: len(report.latencies) > 20, 30, "the load is under way")
        building = "select 1 from pg_stat_progress_create_index where phase like 'building index%'"
        with killed_when(stack, tag, building):
            pass
        stack.sql(SLOW % 0)
        assert stack.sql(INVALID) == "1"
        assert stack.sql(building), "the session of the killed migration still runs"
        started = time.monotonic()
        done = migrate(stack, tag)
        seconds = time.monotonic() - started
    assert closing(done) == f"migrated: {HEAD} -> {ONE}"
    assert stack.sql(INVALID) == "0"
    assert (
        stack.sql("select indisvalid from pg_index where indexrelid = 'drill_ix'::regclass") == "t"
    )
    for action in ("migration_leftover", "invalid_index_dropped"):
        assert action in done.stdout + done.stderr
    figure(
        "migration killed in CREATE INDEX CONCURRENTLY: the next one was done "
        f"{seconds:.1f} s later, 0 invalid"
    )
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)


def test_of_ten_at_once_one_applies_and_the_others_follow(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    tag = variant(stack, tmp_path, "ten", f'{TABLE}\nop.execute("select pg_sleep(3)")')
    started = time.monotonic()
    with ThreadPoolExecutor(10) as threads:
        done = list(threads.map(lambda _: migrate(stack, tag), range(10)))
    figure(
        "ten migrations at once: one applied, ten exited 0 within "
        f"{time.monotonic() - started:.1f} s"
    )
    lines = sorted(closing(one) for one in done)
    assert lines == [f"migrated: {HEAD} -> {ONE}", *[f"migrated: {ONE} -> {ONE}"] * 9]


def test_phase_pre_stops_before_the_first_post(stack: Stack, tmp_path: Path) -> None:
    tag = variant(stack, tmp_path, "phases", COLUMN, TABLE, phases=("pre", "post"))
    pre = ("python", "-m", "api.migrate", "--phase", "pre")
    assert closing(migrate(stack, tag, *pre)) == f"migrated: {HEAD} -> {ONE}"
    assert closing(migrate(stack, tag, *pre)) == f"migrated: {ONE} -> {ONE}"
    assert stack.sql("select to_regclass('drill_notes')") == ""
    assert closing(migrate(stack, tag)) == f"migrated: {ONE} -> {TWO}"
    ahead = f"migrated: nothing to do, the database is ahead of this release, at {TWO}"
    assert closing(migrate(stack, "blue")) == ahead


@pytest.mark.counts_losses
def test_the_release_before_works_on_the_new_schema(
    stack: Stack, tmp_path: Path, figure: Figure
) -> None:
    tag = variant(stack, tmp_path, "next", f"{COLUMN}\n{TABLE}", INDEX)
    load = Load(stack, rate=100)
    with load.running() as report:
        wait_until(lambda: len(report.latencies) > 300, 30, "the load is under way")
        begun = len(report.latencies)
        assert closing(migrate(stack, tag)) == f"migrated: {HEAD} -> {TWO}"
        ended = len(report.latencies)
        wait_until(
            lambda: len(report.latencies) > ended + 500, 30, "the load continues on the new schema"
        )
        journey.test_a_new_user_reaches_a_csv_file_of_their_items(stack)
        journey.test_a_job_exists_exactly_when_its_export_was_committed(stack)
        assert stack.is_serving()
    steady, during = p99(report.latencies[:begun]) * 1000, p99(report.latencies[begun:ended]) * 1000
    figure(
        f"release before on the next schema: {report.sent} requests, "
        f"{len(report.failures)} failed, "
        f"p99 {steady:.0f} ms before, {during:.0f} ms while it migrates"
    )
    assert report.failures == []
    assert load.lost_and_doubled() == (0, 0)
    assert stack.sql(INVALID) == "0"
    assert (
        stack.sql("select indisvalid from pg_index where indexrelid = 'drill_ix'::regclass") == "t"
    )
