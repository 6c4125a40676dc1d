"""The rows that a drill looks for: one every few seconds, in the database `postgres`, apart from the application's."""

from backup import postgres

# A month of rows at one every ten seconds: above what two weekly full backups keep, so that each time that can be
# restored has its rows.
KEEP_ROWS = 31 * 8640
WRITE = """
    set client_min_messages = warning;
    create table if not exists slipway_ledger (
        id bigint generated always as identity primary key, written timestamptz not null default clock_timestamp()
    );
    insert into slipway_ledger default values;
    delete from slipway_ledger where id < (select max(id) from slipway_ledger) - :keep
"""


def write() -> None:
    """Commit one row, and delete the old ones.

    Raises:
        Failed: where Postgres does not take it.
    """
    postgres.ask(WRITE.replace(":keep", str(KEEP_ROWS)))
