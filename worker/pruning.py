"""Deletes what is over, however much of it there is; each module says of its own table what that is."""

from sqlalchemy import Delete, TextClause

from api.storing.database import Database

# Measured: 10 ms for refresh tokens, about 50 ms of locks for idempotency keys; far below STATEMENT_SECONDS.
BATCH_ROWS = 5000


async def delete_in_batches(database: Database, statement: Delete | TextClause) -> int:
    """Run a DELETE of at most BATCH_ROWS rows until it finds fewer, each time on its own; return how many went."""
    total, deleted = 0, BATCH_ROWS
    while deleted == BATCH_ROWS:
        async with database.transaction() as connection:
            deleted = (await connection.execute(statement)).rowcount
        total += deleted
    return total
