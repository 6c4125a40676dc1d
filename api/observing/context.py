"""The id of the request that is being served, for logs, error bodies and the jobs it enqueues."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
