"""Watches the live slot in nginx's access log after a switch; changes nothing.

A log that shows nothing proves nothing: the watch sends its own requests, and must find them.
"""

from datetime import UTC, datetime, timedelta

from stack.commands import engine
from stack.commands.command import Command
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.rules import verdict
from stack.rules.verdict import NO_TRAFFIC, Traffic
from stack.runner import Runner
from stack.waiting import wait_until

BEFORE_SECONDS = 30
LOOK_SECONDS = 1.0
# Chosen: the engine delivers a line within milliseconds; a busy host may take longer.
PROOF_SECONDS = 5


def recent_traffic(runner: Runner, slot: str) -> Traffic:
    """Return the traffic of a slot in the last BEFORE_SECONDS."""
    start = datetime.now(UTC) - timedelta(seconds=BEFORE_SECONDS)
    return verdict.traffic_of(runner.read(_log(start)).out, slot)


def check_sight(runner: Runner, project: Project) -> None:
    """Refuse a deploy that could not be watched: a log that does not show a request of today.

    A front door that gives no answer proves nothing; then the watch itself decides.

    Raises:
        Failure: before the switch.
    """
    own = _Probes()
    start = datetime.now(UTC)
    own.ask(runner, project)
    if not own.ids:
        return

    def is_shown() -> bool:
        return verdict.shows(runner.read(_log(start)).out, own.identifiers)

    if not wait_until(runner, is_shown, PROOF_SECONDS):
        raise _blindness("", runbook="deploy-failed-before-the-switch")


def watch_slot(
    runner: Runner, project: Project, slot: str, earlier: Traffic
) -> tuple[str, Traffic]:
    """Watch the live slot; if it is worse, return the reason at once, else an empty text.

    Raises:
        Failure: if the log cannot be read, or shows none of the watch's own requests.
    """
    started = datetime.now(UTC)
    now, own = NO_TRAFFIC, _Probes()
    is_shown, fault = runner.is_dry, ""

    def look() -> None:
        nonlocal now, is_shown, fault
        result = runner.read(_log(started, may_fail=True))
        fault = result.err.strip() or f"exit code {result.code}" if result.code else ""
        now = verdict.traffic_of(result.out, slot, own.identifiers)
        is_shown = not fault and verdict.shows(result.out, own.identifiers)

    def is_failing() -> bool:
        own.ask(runner, project)
        look()
        # Errors end the watch at once. Latency is measured over the whole period, because the
        # first requests fill pools and caches.
        return bool(verdict.judge(earlier, now, by_latency=False))

    def is_proven() -> bool:
        look()
        return is_shown

    is_worse = wait_until(runner, is_failing, project.watch_seconds, pause_seconds=LOOK_SECONDS)
    is_long_enough = project.watch_seconds >= verdict.SHORTEST_SECONDS_FOR_LATENCY
    reason = verdict.judge(earlier, now, by_latency=is_long_enough and not is_worse)
    reason = reason or own.judge(now)
    if not reason and not is_shown and not wait_until(runner, is_proven, PROOF_SECONDS):
        raise _blindness(fault, runbook="deploy-failed-after-the-switch")
    return reason, now


class _Probes:
    """The watch's own requests through the front door."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.sent = self.failed = 0

    def ask(self, runner: Runner, project: Project) -> None:
        """Send a request; nginx logs every request except a health check that succeeds."""
        answer = observation.ask(runner, project, "/version")
        headers = {key.lower(): value for key, value in answer.headers.items()}
        self.ids += filter(None, [headers.get("x-request-id")])
        self.sent += 1
        self.failed += not 0 < answer.status < 500

    @property
    def identifiers(self) -> frozenset[str]:
        return frozenset(self.ids)

    def judge(self, now: Traffic) -> str:
        """Return the reason why the release is bad if there are too few other requests."""
        if now.requests >= verdict.FEWEST_REQUESTS or 2 * self.failed <= self.sent:
            return ""
        return f"{self.failed} of {self.sent} requests of the watch failed, and few others came"


def _log(start: datetime, *, may_fail: bool = False) -> Command:
    options = ["--no-color", "--no-log-prefix", "--since", start.isoformat()]
    return engine.compose("logs", *options, "nginx", may_fail=may_fail)


def _blindness(fault: str, runbook: str) -> Failure:
    return Failure(
        "cannot watch: nginx' log does not show the requests that nginx has just answered"
        + (f": {fault}" if fault else ""),
        hints=[
            "docker compose logs --tail 5 nginx must show requests: compare its logging driver",
            "WATCH_SECONDS=0 in .env deploys without a watch",
        ],
        runbook=runbook,
    )
