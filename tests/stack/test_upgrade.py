"""The runbook upgrades the database to the next major version; a failure changes nothing."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from stack.stories.upgrade_postgres import CLOSED

from tests.conftest import Figure
from tests.stack import old_postgres
from tests.stack.documents import blocks, incidents
from tests.stack.harness import PROJECT, Stack, copy_checkout, wait_until
from tests.stack.load import Load
from tests.stack.test_documents import execute, is_misused

pytestmark = pytest.mark.drill

ENTRY = "postgres-major-upgrade"
VERSION = "select current_setting('server_version_num')::int / 10000"
DATA = "/var/lib/postgresql/data"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A separate stack with the Postgres of the previous Debian release."""
    root = tmp_path_factory.mktemp("old")
    copy_checkout(root)
    stack = Stack(root, project=f"{PROJECT}-upgrade")
    stack.remove()
    environment = (root / ".env.example").read_text(encoding="utf-8")
    image = old_postgres.ensure_image()
    environment = environment.replace("POSTGRES_IMAGE=\n", f"POSTGRES_IMAGE={image}\n")
    (root / ".env").write_text(environment, encoding="utf-8")
    try:
        stack.run("./scripts/up.sh", timeout=900)
        assert stack.sql(VERSION) == str(old_postgres.MAJOR)
        yield stack
    finally:
        stack.remove()


def in_volume(stack: Stack, *command: str) -> str:
    return stack.compose(
        "run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", command[0], "postgres", *command[1:]
    )


def in_backup(stack: Stack, program: str) -> str:
    """Run Python code in the backup service, and return its output."""
    return stack.compose("exec", "--no-TTY", "backup", "python3", "-c", program).strip()


# Deletes a row of the copy before the script compares both databases.
LOOK = "\tafter=$(contents"
LOSE = """\tpsql "${to[@]}" --quiet --dbname="$1" --command "delete from alembic_version" || :\n"""
# These statements make the old server end a WAL segment; a checkpoint may then recycle segments.
LOG = [
    "select pg_create_restore_point('drill')",
    "select pg_switch_wal()",
    "checkpoint",
    "checkpoint",
]
LOSE += "".join(
    f"""\tpsql "${{from[@]}}" --quiet --dbname=postgres --command "{line}" >/dev/null\n"""
    for line in LOG
)
HANG = "\tsleep infinity\n"
GAP = (
    "from backup import archive, snapshot; archive.archive_now(print);"
    " print(snapshot.read_archive().gap)"
)
NEWEST = (
    "from backup import pgbackrest; newest = pgbackrest.list_backups()[-1];"
    " print(newest.kind, newest.database_id)"
)
COMMITTED = "select pg_xact_commit_timestamp(xmin) is not null from alembic_version"
ROWS = "select (select count(*) from users), (select version_num from alembic_version)"


def refused(stack: Stack, tag: str) -> str:
    """Start Postgres, which must refuse; return its error."""
    run = ("docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", "postgres")
    done = stack.run(*run, check=False, timeout=60, POSTGRES_TAG=tag)
    assert done.returncode == 1, done.stdout
    return done.stderr


@pytest.mark.nightly  # the tests of every change include a whole upgrade
def test_a_copy_that_is_not_the_same_is_thrown_away_and_all_is_as_before(old: Stack) -> None:
    with old.edited("postgres/upgrade.sh", LOOK, LOSE + LOOK):
        done = old.run("./scripts/upgrade-postgres.sh", check=False)
    assert done.returncode == 1
    assert "< public.alembic_version|1" in done.stderr
    assert "> public.alembic_version|0" in done.stderr
    assert "HINT: Postgres 15 serves again, as before" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"answering at {old.url}")
    assert old.sql(VERSION) == str(old_postgres.MAJOR)
    assert not {name for name in in_volume(old, "ls", DATA).split() if name.startswith("17")}
    execute(old, "./scripts/status.sh")
    assert in_backup(old, GAP) == "", "the archive has no gap"
    assert old.sql(COMMITTED) == "t"
    told = refused(old, "next")
    assert (
        "error: the volume holds a database of Postgres 15, and this image is Postgres 17" in told
    )
    assert f"RUNBOOK: docs/runbook.md#{ENTRY}" in told


@pytest.mark.nightly  # kills of a deploy and a restore are in every change
def test_after_a_kill_in_the_copy_no_second_server_starts_and_up_ends_the_first(old: Stack) -> None:
    rows = old.sql(ROWS)
    with old.edited("postgres/upgrade.sh", LOOK, HANG + LOOK):
        upgrade = subprocess.Popen(
            ["./scripts/upgrade-postgres.sh"], cwd=old.root, env=old.environment
        )
        try:
            top = ("docker", "top", f"{old.project}-postgres-next")
            wait_until(
                lambda: "sleep infinity" in old.run(*top, check=False).stdout,
                180,
                "the copy has started",
            )
        finally:
            upgrade.kill()
            upgrade.wait(10)
    assert (
        f"error: another server runs on {DATA}/{old_postgres.MAJOR}, in another container"
        in refused(old, "current")
    )
    old.run("./scripts/up.sh")
    listing = (
        "docker",
        "ps",
        "--filter",
        f"volume={old.project}_postgres",
        "--format",
        "{{.Names}}",
    )
    assert set(old.run(*listing).stdout.split()) == {
        f"{old.project}-{name}-1" for name in ("backup", "postgres")
    }
    assert old.sql(ROWS) == rows
    assert old.sql("show default_transaction_read_only") == "off"


def keep_archive(stack: Stack, source: str, target: str) -> None:
    """Copy the files that identify the database of the archive and of the backups."""
    files = ("archive/main/archive.info", "backup/main/backup.info")
    lines = [
        f"mkdir -p {target}/{file.rpartition('/')[0]}; cp {source}/{file}* "
        f"{target}/{file.rpartition('/')[0]}"
        for file in files
    ]
    stack.compose(
        "exec", "--no-TTY", "backup", "sh", "-ec", "; ".join(("cd /var/lib/pgbackrest", *lines))
    )


@pytest.mark.counts_losses
def test_the_database_goes_to_the_next_major_version_by_the_runbook(
    old: Stack, figure: Figure
) -> None:
    parts = incidents()[ENTRY]
    keep_archive(old, "repository", "before")
    load = Load(old, rate=20)
    with load.running() as report:
        wait_until(lambda: len(report.acknowledged) > 20, 30, "the load is under way")
        for line in "\n".join(blocks(parts["Diagnosis"])).splitlines():
            assert not is_misused(old, line), line
        told = execute(old, "\n".join(blocks(parts["Mitigation"]))).stdout
        good = len(report.latencies)
        wait_until(lambda: len(report.latencies) > good + 20, 30, "requests succeed again")
    for block in blocks(parts["Verification"]):
        execute(old, block)
    lost, doubled = load.lost_and_doubled()
    figure(
        f"upgrade from {old_postgres.MAJOR} to {old.sql(VERSION)}: 503 for "
        f"{report.longest_gap:.0f} s, "
        f"sent {report.sent}, failed {len(report.failures)}, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert [what for _, what in report.failures if not re.match(r"(GET|POST) 50[23] ", what)] == []
    assert re.search(r"slipway: \d\d tables and sequences are the same", told)
    assert old.sql(VERSION) == "17"
    assert old.sql("show data_checksums") == "on"
    assert {str(old_postgres.MAJOR), "17"} <= set(in_volume(old, "ls", DATA).split())
    environment = (old.root / ".env").read_text(encoding="utf-8")
    assert f"POSTGRES_IMAGE={old_postgres.IMAGE}" not in environment
    assert f"# POSTGRES_IMAGE before the upgrade to 17: {old_postgres.IMAGE}\n" in environment
    told = refused(old, "before")
    assert (
        "error: the volume holds a database of Postgres 17, and this image is Postgres 15" in told
    )


def test_the_directory_of_an_upgrade_keeps_what_is_written_the_next_time_too(old: Stack) -> None:
    """The settings in the new directory keep writes safe, during the next upgrade too."""
    names = "fsync full_page_writes wal_level track_commit_timestamp archive_mode"
    closed = " ".join(f"-c {setting}" for setting in CLOSED)
    ask = f'for name in {names}; do postgres -D {DATA}/17 {closed} -C "$name"; done'
    assert in_volume(old, "sh", "-euc", ask).split() == ["on", "on", "replica", "on", "on"]
    ask = f'for name in fsync full_page_writes wal_level; do postgres -D {DATA}/17 -C "$name"; done'
    assert in_volume(old, "sh", "-euc", ask).split() == ["on", "on", "replica"]


def test_an_archive_that_was_not_told_of_the_upgrade_is_told_at_the_next_start(old: Stack) -> None:
    keep_archive(old, "before", "repository")
    check = ("docker", "compose", "exec", "--no-TTY", "backup", "pgbackrest", "check")
    assert "do not match" in (told := old.run(*check, check=False)).stdout + told.stderr
    execute(old, "docker compose restart backup")
    old.run("./scripts/up.sh")
    wait_until(
        lambda: in_backup(old, NEWEST) == "full 2",
        120,
        "the new database has a full backup",
        1,
    )
    execute(old, "docker compose exec --no-TTY backup pgbackrest check\n./scripts/status.sh")
