"""Error reports to Sentry; without a DSN nothing is sent.

A report contains the exception, its place and the release, and never the content of a request. No
integration sees the request: only records that the code logs as errors become reports.
"""

import re
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport
from sentry_sdk.types import Event

from api.configuring.settings import ProcessSettings
from api.observing import context

KEPT = frozenset(
    {
        "event_id",
        "timestamp",
        "level",
        "logger",
        "platform",
        "release",
        "environment",
        "server_name",
        "sdk",
        "exception",
        "tags",
        "type",
    }
)
FLUSH_SECONDS = 2.0  # below every grace period: an unreachable Sentry must not delay a drain
SECRETS = re.compile(
    r"\?\S+|\b(?:bearer|basic)\s+\S+"
    r"|\b\w{0,30}(?:password|passwd|token|secret|cookie|authorization)\w{0,30}\s*[=:].*"
    # A quoted part usually comes from the request: invalid input syntax for type uuid: "...",
    # KeyError('...').
    r"|\"[^\"]*\"?|'[^']*'?",
    re.IGNORECASE,
)


def scrub(text: str) -> str:
    """Return the first line with query strings, credentials and quoted parts redacted.

    Postgres quotes the row in its second line.
    """
    return SECRETS.sub("[redacted]", text.split("\n", 1)[0])


def scrub_event(event: Event, hint: dict[str, Any]) -> Event:
    """Return the event with the fields of KEPT alone, scrubbed; Sentry's `before_send`."""
    kept: dict[str, Any] = {key: value for key, value in event.items() if key in KEPT}
    entry = event.get("logentry")
    # The message of procrastinate's record contains the job's arguments.
    job = getattr(hint.get("log_record"), "job", None) or {}
    if entry:
        message = (
            f"job failed: {job.get('task_name')}" if job else scrub(str(entry.get("message", "")))
        )
        kept["logentry"] = {"message": message}
    for item in kept.get("exception", {}).get("values", []):
        item["value"] = scrub(str(item.get("value", "")))
    request_id = job.get("task_kwargs", {}).get("request_id") or context.request_id.get()
    kept["tags"] = {**(kept.get("tags") or {}), "request_id": request_id or "none"}
    return kept  # type: ignore[return-value]  # a dict of the event's own keys


def start_sentry(settings: ProcessSettings, transport: Transport | None = None) -> None:
    """Start the SDK if there is a DSN; `transport` is for tests."""
    if not settings.sentry_dsn:  # no secret, or an empty file
        return
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        transport=transport,
        release=settings.release,
        environment=settings.environment,
        server_name=f"{settings.service}-{settings.slot}",
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration(level=None)],
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        before_send=scrub_event,
    )
    sentry_sdk.get_global_scope().set_tag("service", settings.service)
    sentry_sdk.get_global_scope().set_tag("slot", settings.slot)


def flush_sentry() -> None:
    """Send the pending reports; stop after FLUSH_SECONDS."""
    if sentry_sdk.is_initialized():
        sentry_sdk.get_client().close(timeout=FLUSH_SECONDS)
