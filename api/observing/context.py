"""The id of the current request, for logs, error bodies and the jobs that the request enqueues."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
