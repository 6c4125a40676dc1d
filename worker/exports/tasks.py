"""The tasks of exports: write one, expire old ones."""

from datetime import timedelta
from uuid import UUID

from procrastinate import JobContext

from api.exports.tasks import WRITE_EXPORT
from api.storing.jobs import queue
from worker.execution import Backoff
from worker.exports import service
from worker.registry import HOUSEKEEPING, database_of, job

EXPIRE_EXPORTS = "exports.expire"


async def _mark_failed(context: JobContext) -> None:
    await service.mark_failed(database_of(context), UUID(str(context.job.task_kwargs["export_id"])))


# Measured: 20,000 rows take most of a second, so ten minutes are enough for millions.
@job(WRITE_EXPORT, limit_seconds=600, on_failed=_mark_failed, retry=Backoff())
async def write_export(
    context: JobContext, *, export_id: str, request_id: str | None = None
) -> None:
    """Write the file of one export."""
    keep = timedelta(hours=context.additional_context["export_keep_hours"])
    await service.write_export(database_of(context), UUID(export_id), keep)


# The queueing lock of a periodic task keeps a second job of the task from waiting beside the first,
# and a run that succeeds deletes earlier runs that failed. This is so for every periodic task.
@queue.periodic(cron="*/5 * * * *")
@job(
    EXPIRE_EXPORTS,
    limit_seconds=120,
    retry=Backoff(),
    priority=HOUSEKEEPING,
    queueing_lock=EXPIRE_EXPORTS,
)
async def expire_exports(context: JobContext, timestamp: int) -> None:
    """Delete the files of exports that have expired."""
    await service.expire_exports(database_of(context))
