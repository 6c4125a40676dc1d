"""Watches the live slot after a switch, by the counter's numbers; changes nothing.

Without traffic, the counts prove nothing. So the watch sends requests and must find them there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stack.config.project import Project
from stack.config.service import Request
from stack.failure import Failure
from stack.parts import counts, observation
from stack.parts.counts import AFTER, BEFORE, Period
from stack.rules import verdict
from stack.rules.verdict import Traffic
from stack.runner import Runner
from stack.waiting import wait_until

LOOK_SECONDS = 1.0
# Chosen: a datagram arrives within milliseconds; a busy host may take longer.
PROOF_SECONDS = 5
# Chosen: after this time, the counter ends the period of a killed deploy. It is long enough for
# most migrations before a switch, and for the change of workers after it.
SPARE_SECONDS = 600
# nginx/conf.d/10-log.conf
MARK = "X-Slipway-Watch"


@dataclass(frozen=True)
class Outcome:
    """The end of a watch.

    Attributes:
        reason: why the release is worse, or an empty text.
        text: the facts.
        unjudged: errors that are too few to judge the release by, or an empty text.
    """

    reason: str = ""
    text: str = ""
    unjudged: str = ""

    def describe_end(self, slot: str, seconds: float) -> str:
        """Return the closing lines of a deploy that is kept."""
        if not self.unjudged:
            return f"deployed in {seconds:.1f} s; back: ./scripts/rollback.sh"
        return (
            f"deployed, NOT judged: {self.unjudged}\n"
            f"  its errors  ./scripts/logs.sh api-{slot}\n"
            f"  back        ./scripts/rollback.sh"
        )


def begin(runner: Runner, project: Project, slot: str, runbook: str) -> str:
    """Begin to count the answers of a slot; return the name of the period.

    Raises:
        Failure: if the counter does not answer.
    """
    seconds = project.watch_seconds + project.ready_seconds + SPARE_SECONDS
    return "" if runner.is_dry else counts.begin(runner, slot, seconds, runbook)


def watch_alone(runner: Runner, project: Project, requests: Sequence[Request] = ()) -> Outcome:
    """Watch by own requests alone, where nginx' container is older than the counter."""
    own = _Probes("", requests)

    def ask() -> bool:
        own.ask(runner, project)
        return False

    wait_until(runner, ask, project.watch_seconds, pause_seconds=LOOK_SECONDS)
    return Outcome(own.judge(), f"no counter yet: ./scripts/up.sh --apply nginx adds it; {own}")


def end_former(runner: Runner, name: str) -> Traffic:
    """Return the traffic of the former slot, and end its period.

    If the period has ended, as after a long migration, there is no traffic to compare with: the
    errors of the new release then count in full.
    """
    if runner.is_dry:
        return verdict.NO_TRAFFIC
    try:
        return counts.read_period(runner, name, BEFORE, is_last=True).traffic()
    except Failure:
        return verdict.NO_TRAFFIC


def check_sight(runner: Runner, project: Project, slot: str) -> None:
    """Refuse a deploy that could not be watched, because the counter misses a present request.

    If the front door does not answer, nothing is proved, and the watch itself decides.

    Raises:
        Failure: before the switch.
    """
    if runner.is_dry:
        return
    name = begin(runner, project, slot, BEFORE)
    own = _Probes(name)
    own.ask(runner, project)
    if not own.answered:
        return

    def is_visible() -> bool:
        return counts.read_period(runner, name, BEFORE).own > 0

    if not wait_until(runner, is_visible, PROOF_SECONDS):
        raise counts.blindness(_UNSEEN, BEFORE)
    counts.end(runner, name)


def watch_slot(
    runner: Runner,
    project: Project,
    name: str,
    earlier: Traffic,
    requests: Sequence[Request] = (),
) -> Outcome:
    """Watch the live slot; if it is worse, return the reason at once.

    Without the name of a period, the watch's own requests alone decide. The watch sends `requests`
    besides its own for the version.

    Raises:
        Failure: if the counter does not answer, has restarted, lost most of the requests, or
            counted none of the watch's own.
    """
    if runner.is_dry:
        return Outcome()
    if not name:
        return watch_alone(runner, project, requests)
    view = _View(runner, name, requests)

    def is_failing() -> bool:
        view.own.ask(runner, project)
        # Errors end the watch at once. Latency is measured over the whole period, because the
        # first requests fill pools and caches.
        return view.look() and bool(verdict.judge(earlier, view.traffic(), by_latency=False))

    is_worse = wait_until(runner, is_failing, project.watch_seconds, pause_seconds=LOOK_SECONDS)
    if not is_worse:
        view.prove()
    is_long_enough = project.watch_seconds >= verdict.SHORTEST_SECONDS_FOR_LATENCY
    reason = verdict.judge(earlier, view.traffic(), by_latency=is_long_enough and not is_worse)
    counts.end(runner, name)
    if verdict.shortage(view.traffic()):
        reason = reason or view.own.judge()
    unjudged = verdict.describe_unjudged(earlier, view.traffic())
    return Outcome(reason, view.describe(earlier), unjudged)


class _View:
    """The readings of the watch's period."""

    def __init__(self, runner: Runner, name: str, requests: Sequence[Request]) -> None:
        self.runner, self.name = runner, name
        self.own = _Probes(name, requests)
        self.periods: list[Period] = []
        self.fault: Failure | None = None

    def look(self) -> bool:
        """Read the period; return whether the counter answered."""
        try:
            self.periods.append(counts.read_period(self.runner, self.name, AFTER))
        except Failure as failure:
            # A busy engine may fail once. Only the last reading is a proof.
            self.fault = failure
            return False
        self.fault = None
        return True

    def prove(self) -> None:
        """Read the period a last time, until it shows the watch's own requests.

        Raises:
            Failure: if it shows nothing, or too little.
        """

        def is_visible() -> bool:
            return self.look() and bool(self.periods[-1].own or not self.own.answered)

        if not wait_until(self.runner, is_visible, PROOF_SECONDS):
            raise self.fault or counts.blindness(_UNSEEN, AFTER)
        if self.periods[-1].is_blind:
            raise counts.blindness(self.losses(), AFTER)

    def traffic(self) -> Traffic:
        """Return the traffic of the last reading."""
        *former, last = self.periods
        return last.traffic([period.buckets for period in former])

    def losses(self) -> str:
        """Return how many requests the counter did not count."""
        last = self.periods[-1]
        return f"{last.lost} of {last.lost + last.received} requests were not counted"

    def describe(self, earlier: Traffic) -> str:
        """Return the facts of the watch in one line."""
        now, own = self.traffic(), self.own
        facts = [str(now), f"before the switch: {earlier}"]
        shortage = verdict.shortage(now)
        if shortage:
            facts = [str(now), shortage, str(own)]
        return "; ".join(facts + ([self.losses()] if self.periods[-1].lost else []))


_UNSEEN = "the counter does not know the requests that nginx has just answered"


class _Probes:
    """The watch's own requests through the front door, with the name of its period as a mark."""

    def __init__(self, name: str, requests: Sequence[Request] = ()) -> None:
        self.name = name
        self.requests = [Request("/version"), *requests]
        self.rounds = self.answered = 0
        self.failed = [0] * len(self.requests)

    def ask(self, runner: Runner, project: Project) -> None:
        """Send each request once."""
        self.rounds += 1
        for place, request in enumerate(self.requests):
            headers = {**request.headers, MARK: self.name}
            status = observation.ask(runner, project, request.path, headers=headers).status
            self.answered += status > 0
            self.failed[place] += not 0 < status < 500 and status != request.status

    def __str__(self) -> str:
        sent = self.rounds * len(self.requests)
        return f"{sent - sum(self.failed)} of {sent} requests of the watch succeeded"

    def judge(self) -> str:
        """Return the reason why the release is bad, where there are too few other requests."""
        bad = [place for place, failed in enumerate(self.failed) if 2 * failed > self.rounds]
        if not bad:
            return ""
        is_every = len(bad) == len(self.requests)
        paths = "" if is_every else f" for {', '.join(self.requests[n].path for n in bad)}"
        failed, sent = sum(self.failed[n] for n in bad), self.rounds * len(bad)
        return f"{failed} of {sent} requests of the watch{paths} failed, and few others came"
