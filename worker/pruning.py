"""Deletes any number of expired rows in batches, with a statement of the caller."""

from sqlalchemy import Delete, TextClause

from api.storing.database import Database

# Measured: 10 ms for refresh tokens, about 50 ms of locks for idempotency keys; far below
# STATEMENT_SECONDS.
BATCH_ROWS = 5000


async def delete_in_batches(database: Database, statement: Delete | TextClause) -> int:
    """Run a DELETE of at most BATCH_ROWS rows until it deletes fewer; return how many in all.

    Each batch is a transaction of its own.
    """
    total, deleted = 0, BATCH_ROWS
    while deleted == BATCH_ROWS:
        async with database.transaction() as connection:
            deleted = (await connection.execute(statement)).rowcount
        total += deleted
    return total
