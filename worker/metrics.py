"""The metrics of jobs, for Prometheus: the queue in Postgres, and the jobs of this process."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from api.storing.database import Database
from api.storing.jobs import QueueState, read_queues

# The port of the first process; each further process has the next port. Only the container's
# networks reach it.
PORT = 9100
LOOK_SECONDS = 10.0  # between two queries; below Prometheus' usual 15 s

# From an export of a few rows (5 ms) to the longest time limit of a task.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0)

JOB_SECONDS = Histogram(
    "slipway_job_duration_seconds",
    "Attempts at jobs by task and outcome: succeeded, failed, timed_out, or interrupted by a"
    " shutdown.",
    ("task", "outcome"),
    buckets=BUCKETS,
)
RUNNING = Gauge("slipway_jobs_running", "Jobs that this process is running, by task.", ("task",))


class QueueCollector(Collector):
    """Shows the queue as it was last read, and nothing if reading failed: no old numbers."""

    def __init__(self) -> None:
        self.states: list[QueueState] = []

    async def look(self, database: Database, known: list[str]) -> None:
        """Read the queue from Postgres; an empty queue in `known` is shown with zeros."""
        self.states = []
        async with database.read() as connection:
            states = {state.queue: state for state in await read_queues(connection)}
        self.states = [*(states.pop(name, QueueState(name)) for name in known), *states.values()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics; prometheus_client calls this for each request."""
        jobs = GaugeMetricFamily(
            "slipway_queue_jobs",
            "Jobs by queue and state: waiting, scheduled for later, running, or failed and waiting"
            " for a person.",
            labels=("queue", "state"),
        )
        oldest = GaugeMetricFamily(
            "slipway_queue_oldest_seconds",
            "Seconds since the oldest job that could run now was enqueued; 0 if none waits.",
            labels=("queue",),
        )
        for state in self.states:
            for name in ("waiting", "scheduled", "running", "failed"):
                jobs.add_metric((state.queue, name), getattr(state, name))
            oldest.add_metric((state.queue,), state.oldest_seconds)
        yield jobs
        yield oldest


def serve(process: int) -> QueueCollector:
    """Listen for Prometheus. Each process shows its own jobs, and all show the same queue."""
    collector = QueueCollector()
    REGISTRY.register(collector)
    start_http_server(PORT + process)
    return collector
