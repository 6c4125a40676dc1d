"""Watches the live slot after a switch by nginx's own access log; decides, and changes nothing."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stack.commands import engine
from stack.config.project import Project
from stack.runner import Runner

# Chosen: below this many requests a share says nothing, and a percentile only shows that the first were slow.
FEWEST_REQUESTS = 20
FEWEST_FOR_LATENCY = 100
# Chosen: a twentieth more errors than before, or three times the latency and at least half a second more.
MORE_ERRORS = 0.05
SLOWER_TIMES = 3.0
SLOWER_SECONDS = 0.5
BEFORE_SECONDS = 30


@dataclass(frozen=True)
class Traffic:
    """What nginx logged of one slot in a span: requests, the share of 5xx, the 95th percentile in seconds."""

    requests: int
    error_share: float
    p95_seconds: float

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.error_share:.1%} errors, p95 {self.p95_seconds * 1000:.0f} ms"


def traffic(log: str, slot: str) -> Traffic:
    """Return the traffic of a slot; an error that carries no slot came from nginx and counts for it too."""
    seconds, errors = [], 0
    for line in log.splitlines():
        try:
            entry = json.loads(line)
            status, found, took = int(entry["status"]), entry["slot"], float(entry["seconds"])
        except (ValueError, KeyError, TypeError):
            continue  # nginx's error log stands between
        if found == slot or (not found and status >= 500):
            seconds.append(took)
            errors += status >= 500
    if not seconds:
        return Traffic(0, 0.0, 0.0)
    return Traffic(len(seconds), errors / len(seconds), sorted(seconds)[int(len(seconds) * 0.95)])


def verdict(before: Traffic, now: Traffic, *, by_latency: bool = True) -> str:
    """Return why the new release is worse than the one before, or an empty text."""
    if now.requests < FEWEST_REQUESTS:
        return ""
    if now.error_share > before.error_share + MORE_ERRORS:
        return f"{now.error_share:.0%} of {now.requests} requests failed, {before.error_share:.0%} before"
    limit = max(before.p95_seconds * SLOWER_TIMES, before.p95_seconds + SLOWER_SECONDS)
    is_enough = min(before.requests, now.requests) >= FEWEST_FOR_LATENCY
    if by_latency and is_enough and now.p95_seconds > limit:
        return f"p95 is {now.p95_seconds * 1000:.0f} ms, {before.p95_seconds * 1000:.0f} ms before"
    return ""


def since(runner: Runner, start: datetime, slot: str) -> Traffic:
    """Return a slot's traffic from a moment on."""
    argv = engine.compose_argv(
        "logs", "--no-color", "--no-log-prefix", "--since", start.isoformat(), "nginx"
    )
    return traffic(runner.read(argv).out, slot)


def before(runner: Runner, slot: str) -> Traffic:
    """Return the traffic of the slot that is live now, in the last BEFORE_SECONDS."""
    return since(runner, datetime.now(UTC) - timedelta(seconds=BEFORE_SECONDS), slot)


def seconds_of(project: Project) -> float:
    """Return for how long a switch is watched."""
    return project.watch_seconds


def watch(runner: Runner, project: Project, slot: str, earlier: Traffic) -> tuple[str, Traffic]:
    """Watch the live slot; return early with the reason when it is worse, else with an empty text."""
    started = datetime.now(UTC)
    deadline = runner.clock() + (0 if runner.is_dry else seconds_of(project))
    now = Traffic(0, 0.0, 0.0)
    while runner.clock() < deadline:
        runner.sleep(1.0)
        now = since(runner, started, slot)
        # Errors end it at once. Latency is judged over the whole span: the first moments warm pools and caches.
        reason = verdict(earlier, now, by_latency=False)
        if reason:
            return reason, now
    return verdict(earlier, now), now
