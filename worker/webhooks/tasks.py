"""The tasks of webhooks: send due deliveries, and delete old deliveries."""

from procrastinate import JobContext

from api.storing.jobs import queue
from api.webhooks.tasks import DELIVER_WEBHOOKS
from worker.execution import Backoff
from worker.registry import HOUSEKEEPING, database_of, job
from worker.webhooks import deliveries

PRUNE_WEBHOOKS = "webhooks.prune"


# The limit covers a minute of claiming (RUN_SECONDS) and the last attempts. A delivery that this
# job leaves behind is due again by itself (worker/webhooks/deliveries.py).
@job(DELIVER_WEBHOOKS, limit_seconds=120, retry=Backoff())
async def deliver_webhooks(context: JobContext, *, request_id: str | None = None) -> None:
    """Send every delivery that is due."""
    under_way: deliveries.Deliveries = context.additional_context["deliveries"]
    await under_way.run()


@queue.periodic(cron="37 3 * * *")
@job(
    PRUNE_WEBHOOKS,
    limit_seconds=300,
    retry=Backoff(),
    priority=HOUSEKEEPING,
    queueing_lock=PRUNE_WEBHOOKS,
)
async def prune_webhooks(context: JobContext, timestamp: int) -> None:
    """Delete deliveries after KEEP_DAYS."""
    await deliveries.prune(database_of(context))
