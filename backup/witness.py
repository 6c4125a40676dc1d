"""Writes the rows that a drill looks for, one every few seconds, in the table slipway_ledger.

The table is in the database `postgres`, apart from the application's.
"""

from backup import postgres

# The rows must cover every time that can be restored. At one row every ten seconds, these cover a
# month, which is longer than two weekly full backups are kept.
KEEP_ROWS = 31 * 8640
WRITE = """
    set client_min_messages = warning;
    create table if not exists slipway_ledger (
        id bigint generated always as identity primary key,
        written timestamptz not null default clock_timestamp()
    );
    insert into slipway_ledger default values;
    delete from slipway_ledger where id < (select max(id) from slipway_ledger) - :keep
"""


def write_row() -> None:
    """Commit one row, and delete those that are too old.

    Raises:
        Failure: when Postgres refuses it.
    """
    postgres.ask(WRITE.replace(":keep", str(KEEP_ROWS)))
