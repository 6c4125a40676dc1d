"""The task of idempotency keys: delete those that have expired."""

import logging

from procrastinate import JobContext
from sqlalchemy import delete, func, select, text, tuple_

from api.idempotency.models import KEEP_HOURS, IdempotencyKey
from api.storing.database import Database
from api.storing.jobs import queue
from worker.execution import Backoff
from worker.pruning import BATCH_ROWS, delete_in_batches
from worker.registry import HOUSEKEEPING, database_of, job

logger = logging.getLogger(__name__)

PRUNE_IDEMPOTENCY_KEYS = "idempotency_keys.prune"
EXPIRED = (
    select(IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key)
    .where(IdempotencyKey.created_at < func.now() - text(f"interval '{KEEP_HOURS} hours'"))
    .limit(BATCH_ROWS)
    # A request that is about to reuse an expired key holds its row; this job must not wait for it.
    .with_for_update(skip_locked=True)
)
DELETE_EXPIRED = delete(IdempotencyKey).where(
    tuple_(IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key).in_(EXPIRED)
)


@queue.periodic(cron="27 * * * *")
@job(
    PRUNE_IDEMPOTENCY_KEYS,
    limit_seconds=300,
    retry=Backoff(),
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_IDEMPOTENCY_KEYS,
)
async def prune_idempotency_keys(context: JobContext, timestamp: int) -> None:
    """Delete the idempotency keys that have expired."""
    await prune_keys(database_of(context))


async def prune_keys(database: Database) -> None:
    """Delete the expired keys in batches, and log how many there were."""
    pruned = await delete_in_batches(database, DELETE_EXPIRED)
    logger.info(
        "idempotency keys pruned", extra={"action": "idempotency_keys_pruned", "pruned": pruned}
    )
