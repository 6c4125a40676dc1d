"""Looks after what logins leave behind."""

import logging

from sqlalchemy import delete, func, select

from api.storing.database import Database
from api.users.models import RefreshToken
from worker.pruning import BATCH_ROWS, delete_in_batches

logger = logging.getLogger(__name__)

# All tokens of a family end at one moment: no live one outlasts the row that says that it was revoked.
_expired = (
    select(RefreshToken.token_hash).where(RefreshToken.expires_at < func.now()).limit(BATCH_ROWS)
)
PRUNE = delete(RefreshToken).where(RefreshToken.token_hash.in_(_expired))


async def prune_refresh_tokens(database: Database) -> None:
    """Delete the refresh tokens that are over."""
    pruned = await delete_in_batches(database, PRUNE)
    logger.info(
        "refresh tokens pruned", extra={"action": "refresh_tokens_pruned", "pruned": pruned}
    )
