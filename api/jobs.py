"""The job queue, in Postgres. The API enqueues by name, inside the transaction that writes the rows.

A job's queue has its task's name: a worker fetches only what its release knows, so that the old slot's worker
never spoils a job of the new release.
"""

import procrastinate
from procrastinate.types import JSONValue
from sqlalchemy.ext.asyncio import AsyncConnection

from api import context

WRITE_EXPORT = "exports.write"
DELIVER_WEBHOOKS = "webhooks.deliver"

queue = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def enqueue(connection: AsyncConnection, task_name: str, **arguments: JSONValue) -> int:
    """Add a job that exists exactly if the transaction on `connection` is committed; return its id."""
    raw = (await connection.get_raw_connection()).driver_connection
    task = queue.configure_task(task_name, queue=task_name, connection=raw)
    return await task.defer_async(request_id=context.request_id.get(), **arguments)
