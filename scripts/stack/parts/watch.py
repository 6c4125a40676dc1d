"""Watches the live slot in nginx's access log after a switch; changes nothing."""

from datetime import UTC, datetime, timedelta

from stack.commands import engine
from stack.config.project import Project
from stack.rules import verdict
from stack.rules.verdict import NO_TRAFFIC, Traffic
from stack.runner import Runner
from stack.waiting import wait_until

BEFORE_SECONDS = 30
LOOK_SECONDS = 1.0


def traffic_since(runner: Runner, start: datetime, slot: str) -> Traffic:
    """Return a slot's traffic since a moment."""
    options = ["--no-color", "--no-log-prefix", "--since", start.isoformat()]
    return verdict.traffic_of(runner.read(engine.compose("logs", *options, "nginx")).out, slot)


def recent_traffic(runner: Runner, slot: str) -> Traffic:
    """Return the traffic of a slot in the last BEFORE_SECONDS."""
    return traffic_since(runner, datetime.now(UTC) - timedelta(seconds=BEFORE_SECONDS), slot)


def watch_slot(
    runner: Runner, project: Project, slot: str, earlier: Traffic
) -> tuple[str, Traffic]:
    """Watch the live slot; if it is worse, return the reason at once, else an empty text."""
    started = datetime.now(UTC)
    now = NO_TRAFFIC

    def is_failing() -> bool:
        nonlocal now
        now = traffic_since(runner, started, slot)
        # Errors end the watch at once. Latency is measured over the whole period, because the
        # first requests fill pools and caches.
        return bool(verdict.judge(earlier, now, by_latency=False))

    wait_until(runner, is_failing, project.watch_seconds, pause_seconds=LOOK_SECONDS)
    is_long_enough = project.watch_seconds >= verdict.SHORTEST_SECONDS_FOR_LATENCY
    return verdict.judge(earlier, now, by_latency=is_long_enough), now
