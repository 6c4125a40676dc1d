"""The task of users: delete the refresh tokens that have expired."""

import logging

from procrastinate import JobContext
from sqlalchemy import delete, func, select

from api.storing.database import Database
from api.storing.jobs import queue
from api.users.models import RefreshToken
from worker.execution import Backoff
from worker.pruning import BATCH_ROWS, delete_in_batches
from worker.registry import HOUSEKEEPING, database_of, job

logger = logging.getLogger(__name__)

PRUNE_REFRESH_TOKENS = "refresh_tokens.prune"
# All tokens of a family expire at the same moment, so no live token outlasts the row that records
# that its family was revoked.
EXPIRED = (
    select(RefreshToken.token_hash).where(RefreshToken.expires_at < func.now()).limit(BATCH_ROWS)
)
DELETE_EXPIRED = delete(RefreshToken).where(RefreshToken.token_hash.in_(EXPIRED))


@queue.periodic(cron="37 * * * *")
@job(
    PRUNE_REFRESH_TOKENS,
    limit_seconds=300,
    retry=Backoff(),
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_REFRESH_TOKENS,
)
async def prune_refresh_tokens(context: JobContext, timestamp: int) -> None:
    """Delete the refresh tokens that have expired."""
    await prune_tokens(database_of(context))


async def prune_tokens(database: Database) -> None:
    """Delete the expired tokens in batches, and log how many there were."""
    pruned = await delete_in_batches(database, DELETE_EXPIRED)
    logger.info(
        "refresh tokens pruned", extra={"action": "refresh_tokens_pruned", "pruned": pruned}
    )
