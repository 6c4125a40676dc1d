"""Deletes idempotency keys whose time is over."""

import logging

from sqlalchemy import delete, func, select, text, tuple_

from api.idempotency.models import KEEP_HOURS, IdempotencyKey
from api.storing.database import Database
from worker.pruning import BATCH_ROWS, delete_in_batches

logger = logging.getLogger(__name__)

OVER = (
    select(IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key)
    .where(IdempotencyKey.created_at < func.now() - text(f"interval '{KEEP_HOURS} hours'"))
    .limit(BATCH_ROWS)
    .with_for_update(
        skip_locked=True
    )  # a request that is just taking a key over keeps it, and nobody waits
)
PRUNE = delete(IdempotencyKey).where(
    tuple_(IdempotencyKey.user_id, IdempotencyKey.route, IdempotencyKey.key).in_(OVER)
)


async def prune_keys(database: Database) -> None:
    pruned = await delete_in_batches(database, PRUNE)
    logger.info(
        "idempotency keys pruned", extra={"action": "idempotency_keys_pruned", "pruned": pruned}
    )
