"""The database goes to the next major version by the runbook; a failure on the way leaves everything as it was."""

import re
from collections.abc import Iterator

import pytest

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
    """A stack of its own whose Postgres is of the Debian release before."""
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
    return stack.compose("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", command[0], "postgres", *command[1:])


# Between the copy and the look at both: a row of the copy goes.
LOOK = "\tafter=$(contents"
LOSE = """\tpsql "${to[@]}" --quiet --dbname="$1" --command "delete from alembic_version" || :\n"""


def refused(stack: Stack, tag: str) -> str:
    """Start Postgres from an image of another version than the volume's newest, and return what it says."""
    run = ("docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", "postgres")
    done = stack.run(*run, check=False, POSTGRES_TAG=tag)
    assert done.returncode == 1, done.stdout
    return done.stderr


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
    told = refused(old, "next")
    assert "error: the volume holds a database of Postgres 15, and this image is Postgres 17" in told
    assert f"RUNBOOK: docs/runbook.md#{ENTRY}" in told


def test_the_database_goes_to_the_next_major_version_by_the_runbook(old: Stack, figure: Figure) -> None:
    parts = incidents()[ENTRY]
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
        f"upgrade from {old_postgres.MAJOR} to {old.sql(VERSION)}: 503 for {report.longest_gap:.0f} s, "
        f"sent {report.sent}, failed {len(report.failures)}, lost {lost}, doubled {doubled}"
    )
    assert (lost, doubled) == (0, 0)
    assert [what for _, what in report.failures if not re.match(r"(GET|POST) 50[23] ", what)] == []
    assert re.search(r"slipway: \d\d tables and sequences are the same", told)
    assert old.sql(VERSION) == "17"
    assert old.sql("show data_checksums") == "on"
    assert {str(old_postgres.MAJOR), "17"} <= set(in_volume(old, "ls", DATA).split())
    assert "slipway-base/postgres:debian-bookworm" not in (old.root / ".env").read_text(encoding="utf-8")
    told = refused(old, "before")
    assert "error: the volume holds a database of Postgres 17, and this image is Postgres 15" in told
