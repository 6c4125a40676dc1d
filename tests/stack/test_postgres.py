"""The running Postgres: memory follows its limit, and statements are logged without values."""

import re
import uuid

import pytest

from tests.stack.documents import OPERATING, blocks
from tests.stack.harness import Stack, wait_until

pytestmark = pytest.mark.stack
MEBIBYTES = {"256m": 256, "1g": 1024}
# The results of the rules in postgres/postgresql.conf; pg_settings counts buffers in pages.
SHARES = {
    "shared_buffers": 4,
    "effective_cache_size": 2,
    "work_mem": 128,
    "maintenance_work_mem": 8,
}
MEMORY = (
    "select name, pg_size_bytes(current_setting(name)) from pg_settings where name = any('{%s}')"
)


def memory_settings(stack: Stack) -> dict[str, int]:
    rows = stack.sql(MEMORY % ",".join(SHARES)).splitlines()
    return {name: int(size) for name, size in (row.split("|") for row in rows)}


@pytest.mark.parametrize("limit", ["1g", "256m"])  # in this order: the last is the default
def test_postgres_divides_up_the_memory_it_is_given(stack: Stack, limit: str) -> None:
    up = (
        "docker",
        "compose",
        "up",
        "--detach",
        "--no-deps",
        "--wait",
        "--wait-timeout",
        "60",
        "postgres",
    )
    stack.run(*up, POSTGRES_MEMORY=limit)
    total = MEBIBYTES[limit] * 1024**2
    assert stack.inspect("postgres")["HostConfig"]["Memory"] == total
    assert stack.inspect("postgres")["HostConfig"]["ShmSize"] == total
    assert memory_settings(stack) == {name: total // share for name, share in SHARES.items()}


def psql(stack: Stack, statement: str, database: str = "slipway") -> str:
    """Run a statement through psql's standard input, where commands such as \\bind work."""
    shell = 'printf "%s\\n" "$1" | psql -qAtX --host=/tmp --username=postgres --dbname="$2"'
    return stack.compose(
        "exec", "--no-TTY", "postgres", "sh", "-ec", shell, "sh", statement, database
    ).strip()


def test_a_slow_statement_is_logged_without_what_it_carries(stack: Stack) -> None:
    mark, secret = f"mark_{uuid.uuid4().hex}", f"canary-{uuid.uuid4().hex}"
    psql(stack, f"select pg_sleep(0.6), length($1) as {mark} \\bind {secret} \\g")
    slow = re.compile(rf"duration: \d+\.\d+ ms .*{mark}")
    wait_until(
        lambda: slow.search(stack.compose("logs", "--no-color", "postgres")),
        10,
        "the statement is in the log",
    )
    assert secret not in stack.compose("logs", "--no-color", "postgres")


def test_the_command_of_the_page_shows_which_statements_take_the_time(stack: Stack) -> None:
    page = OPERATING.read_text(encoding="utf-8")
    shown = next(block for block in blocks(page) if "pg_stat_statements" in block)
    assert "duration: " in shown
    mark = f"mark_{uuid.uuid4().hex}"
    psql(stack, "select pg_stat_statements_reset()", "postgres")
    for seconds in ("0.2", "0.3", "0.4"):
        psql(stack, f"select pg_sleep({seconds}) as {mark}")
    table = stack.run("bash", "-euo", "pipefail", "-c", shown).stdout
    row = next(line for line in table.splitlines() if mark in line)
    calls, total = (int(cell) for cell in row.split("|")[:2])
    assert calls == 3, "the three values do not share one statement"
    assert total >= 900


def test_a_password_that_was_typed_is_not_kept_among_the_statements(stack: Stack) -> None:
    secret = uuid.uuid4().hex
    # Postgres stores the select below, which proves that the last query would find the password.
    # Of several statements that differ only in values, Postgres stores the first: the reset and the
    # unusual select make this select the first.
    psql(stack, "select pg_stat_statements_reset()", "postgres")
    psql(stack, f"begin; create role passing login password '{secret}'; rollback;")
    psql(stack, f"select 1 as seen_{secret}, 'a', 2.5, true")
    kept = "select count(*) from pg_stat_statements where query like '%{}%'"
    counts = [
        psql(stack, kept.format(text), "postgres")
        for text in (f"seen_{secret}", f"password ''{secret}")
    ]
    assert counts == ["1", "0"]


def test_commits_have_times_and_reads_are_timed(stack: Stack) -> None:
    assert (
        stack.sql(
            "select current_setting('track_commit_timestamp'), current_setting('track_io_timing')"
        )
        == "on|on"
    )
    assert stack.sql("select pg_xact_commit_timestamp(xmin) is not null from users limit 1") == "t"
