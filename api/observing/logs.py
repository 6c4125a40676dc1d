"""Logs: one JSON object per line on stdout, with the same fields from every process.

No line holds a secret or a query string.
"""

import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from api.configuring.settings import ProcessSettings
from api.observing import context

# taskName comes from asyncio; color_message is Uvicorn's second copy of the message.
DROPPED = (*RESERVED_ATTRS, "taskName", "color_message")


class LineFormatter(JsonFormatter):
    """Writes the fixed fields (ts to request_id), then the record's extras."""

    def __init__(self, service: str, slot: str, release: str) -> None:
        super().__init__(reserved_attrs=DROPPED, json_ensure_ascii=False)
        self.identity = {"service": service, "slot": slot, "release": release}

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["ts"] = datetime.fromtimestamp(record.created, UTC).isoformat(
            timespec="milliseconds"
        )
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["action"] = "log"
        log_data["message"] = record.message
        log_data.update(self.identity)
        log_data["request_id"] = context.request_id.get()
        super().add_fields(log_data, record, message_dict)
        job = log_data.get("job")
        if isinstance(job, dict):  # procrastinate's job: keep the request id and three facts
            log_data["request_id"] = job.get("task_kwargs", {}).get("request_id")
            log_data["job"] = {key: job.get(key) for key in ("id", "task_name", "attempts")}
            log_data.pop("worker", None)


def log_config(settings: ProcessSettings) -> dict[str, Any]:
    """Return the argument of logging.config.dictConfig; it is Gunicorn's `logconfig_dict`, too."""
    own = {"level": settings.log_level, "handlers": ["stdout"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": LineFormatter,
                "service": settings.service,
                "slot": settings.slot,
                "release": settings.release,
            }
        },
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "line",
            }
        },
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "api": own,
            "worker": own,
            "gunicorn.error": own,
            # RequestMiddleware writes the access line; Gunicorn's would contain the query string.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "uvicorn.error": own,
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "procrastinate": own,
            "alembic": {**own, "level": "WARNING"},
            "sqlalchemy.engine": {**own, "level": "INFO" if settings.debug else "WARNING"},
        },
    }
