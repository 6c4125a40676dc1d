"""Answers /healthz, /status and /metrics on port 9101; the first and the last from what the watch saw, at once."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from backup import health, observation, records, tasks
from backup.observation import Snapshot
from backup.restore import directories
from backup.settings import Settings

# The watch looks every 10 s; a program it runs may take a minute before it is given up.
SNAPSHOT_SECONDS = 90.0


class Metrics:
    """Collects from the newest snapshot and the records at each scrape."""

    def __init__(self, settings: Settings, newest: Callable[[], Snapshot]) -> None:
        self.settings, self.newest = settings, newest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families; times in seconds, sizes in bytes."""
        seen, now = self.newest(), time.time()
        success = GaugeMetricFamily(
            "slipway_task_last_success_timestamp_seconds",
            "End of a task's last success; 0: never",
            labels=["task"],
        )
        well = GaugeMetricFamily(
            "slipway_task_well", "1 where a task's last run succeeded", labels=["task"]
        )
        duration = GaugeMetricFamily(
            "slipway_task_duration_seconds", "How long its last run took", labels=["task"]
        )
        for task in tasks.TASKS:
            record = records.read(task.name)
            success.add_metric([task.name], record.last_success)
            well.add_metric([task.name], float(record.is_well))
            duration.add_metric([task.name], record.seconds)
        yield from (success, well, duration)
        if "archiver" not in seen.faults:
            one = seen.archiver
            for name, text, value in (
                (
                    "slipway_archive_lag_seconds",
                    "Age of the newest segment in the archive",
                    seen.lag_seconds(now),
                ),
                (
                    "slipway_archive_waiting_segments",
                    "Segments that wait to be archived",
                    one.waiting,
                ),
                ("slipway_wal_bytes", "Size of pg_wal", one.wal_bytes),
            ):
                yield GaugeMetricFamily(name, text, value)
        if self.settings.offsite:
            lag = observation.offsite_lag_seconds(now)
            yield GaugeMetricFamily(
                "slipway_offsite_lag_seconds", "Age of the newest segment off the host", lag
            )
            waiting = float(records.read("shipping").facts.get("waiting", 0))
            yield GaugeMetricFamily(
                "slipway_offsite_waiting_segments", "Segments that wait to be shipped", waiting
            )
        row_well = GaugeMetricFamily(
            "slipway_backup_status_well", "1 where a line of status.sh is well", labels=["row"]
        )
        for row in observation.rows(self.settings, seen, now):
            row_well.add_metric([row.name], float(row.is_well))
        yield row_well
        yield GaugeMetricFamily(
            "slipway_backups_free_ratio", "Free part of the backups' volume", seen.backups_free
        )
        usage = shutil.disk_usage(directories.DATA)
        free = usage.free / usage.total
        yield GaugeMetricFamily(
            "slipway_postgres_free_ratio", "Free part of Postgres' volume", free
        )


def serve(settings: Settings, newest: Callable[[], Snapshot]) -> ThreadingHTTPServer:
    """Return the server, bound and not started."""
    registry = CollectorRegistry()
    registry.register(Metrics(settings, newest))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = 200, b""
            if self.path == "/healthz":
                code = 200 if time.time() - newest().at < SNAPSHOT_SECONDS else 503
            elif self.path == "/status":
                rows = observation.rows(settings, observation.observe(), time.time())
                body = json.dumps([asdict(row) for row in rows]).encode()
            elif self.path == "/metrics":
                body = generate_latest(registry)
            else:
                code = 404
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the probes out of the log."""

    return ThreadingHTTPServer(("0.0.0.0", health.PORT), Handler)  # noqa: S104  its networks publish nothing
