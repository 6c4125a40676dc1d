"""Answers /healthz, /status and /metrics on port 9101.

/healthz and /metrics use the watch's newest snapshot, so that they answer at once.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from backup import answers, health, records, report, snapshot, tasks
from backup.policy import Policy
from backup.restore import directories
from backup.snapshot import Snapshot

# The watch takes a snapshot every 10 s; a program that it runs may take a minute.
SNAPSHOT_SECONDS = 90.0


class Metrics:
    """Collects from the newest snapshot and the records at each scrape."""

    def __init__(self, policy: Policy, newest: Callable[[], Snapshot]) -> None:
        self.policy, self.newest = policy, newest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics; times are in seconds, sizes in bytes."""
        current, now = self.newest(), time.time()
        yield from _collect_tasks()
        yield from _collect_archive(current, now)
        if self.policy.offsite:
            yield from _collect_offsite(now)
        well = GaugeMetricFamily(
            "slipway_backup_status_well", "1 if a line of status.sh is well", labels=["row"]
        )
        for row in report.make_rows(self.policy, current, now):
            well.add_metric([row.name], float(row.is_well))
        yield well
        yield GaugeMetricFamily(
            "slipway_backups_free_ratio", "Free part of the backups' volume", current.backups_free
        )
        usage = shutil.disk_usage(directories.DATA)
        yield GaugeMetricFamily(
            "slipway_postgres_free_ratio",
            "Free part of Postgres' volume",
            usage.free / usage.total,
        )


def _collect_tasks() -> Iterator[GaugeMetricFamily]:
    success = GaugeMetricFamily(
        "slipway_task_last_success_timestamp_seconds",
        "End of a task's last success; 0: never",
        labels=["task"],
    )
    well = GaugeMetricFamily(
        "slipway_task_well", "1 if a task's last run succeeded", labels=["task"]
    )
    duration = GaugeMetricFamily(
        "slipway_task_duration_seconds", "Duration of a task's last run", labels=["task"]
    )
    for task in tasks.TASKS:
        record = records.read(task.name)
        success.add_metric([task.name], record.last_success)
        well.add_metric([task.name], float(record.is_well))
        duration.add_metric([task.name], record.seconds)
    yield from (success, well, duration)


def _collect_archive(current: Snapshot, now: float) -> Iterator[GaugeMetricFamily]:
    if "archiver" in current.faults:
        return
    yield GaugeMetricFamily(
        "slipway_archive_lag_seconds",
        "Age of the newest segment in the archive",
        current.lag_seconds(now),
    )
    yield GaugeMetricFamily(
        "slipway_archive_waiting_segments",
        "Segments that wait to be archived",
        current.archiver.waiting,
    )
    yield GaugeMetricFamily("slipway_wal_bytes", "Size of pg_wal", current.archiver.wal_bytes)


def _collect_offsite(now: float) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(
        "slipway_offsite_lag_seconds",
        "Age of the newest segment off the host",
        report.measure_offsite_lag(now),
    )
    yield GaugeMetricFamily(
        "slipway_offsite_waiting_segments",
        "Segments that wait to be shipped",
        float(records.read("shipping").facts.get("waiting", 0)),
    )


def serve(policy: Policy, newest: Callable[[], Snapshot]) -> ThreadingHTTPServer:
    """Return the server, bound and not started."""
    registry = CollectorRegistry()
    registry.register(Metrics(policy, newest))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = 200, b""
            if self.path == "/healthz":
                code = 200 if time.time() - newest().at < SNAPSHOT_SECONDS else 503
            elif self.path == "/status":
                rows = report.make_rows(policy, snapshot.take(), time.time())
                body = answers.format_rows([asdict(row) for row in rows]).encode()
            elif self.path == "/metrics":
                body = generate_latest(registry)
            else:
                code = 404
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the probes out of the log."""

    address = ("0.0.0.0", health.PORT)  # noqa: S104  compose publishes no port
    return ThreadingHTTPServer(address, Handler)
