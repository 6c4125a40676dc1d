"""Reads the counter; a counter that cannot be read is a failure, never a count of zero."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stack.commands import counter
from stack.commands.command import Command
from stack.failure import Failure
from stack.rules import verdict
from stack.rules.verdict import Traffic
from stack.runner import Result, Runner

BEFORE, AFTER = "deploy-failed-before-the-switch", "deploy-failed-after-the-switch"
# counter/datagrams.py: nginx passed the request on, and no answer named a slot.
UNNAMED = "unnamed"
# The numbers of a period that a verdict needs.
NUMBERS = (
    *("answers", "errors", "failing_pairs", "error_share"),
    *("addresses", "failing_addresses"),
)


@dataclass(frozen=True)
class Period:
    """The counts of a slot since a period began.

    Attributes:
        own: the requests of the scripts; of the other numbers, only `received` includes them.
        received: the requests through the front door that the counter counted.
        lost: the requests of nginx that it did not count.
        buckets: the answers of the slot by latency.
    """

    name: str
    own: int
    received: int
    lost: int
    buckets: Sequence[int]
    facts: dict[str, Any]

    @property
    def is_blind(self) -> bool:
        """Whether more requests were lost than counted, so that the counts are no sample."""
        return self.lost > self.received

    def traffic(self, history: Sequence[Sequence[int]] = ()) -> Traffic:
        """Return the traffic; `history` contains the buckets of earlier readings."""
        facts = self.facts
        steps = [[0] * len(self.buckets), *history, self.buckets]
        return Traffic(
            requests=facts["answers"],
            counted=facts["answers"] - facts["errors"] + facts["failing_pairs"],
            error_share=facts["error_share"],
            addresses=facts["addresses"],
            failing_addresses=facts["failing_addresses"],
            p95_seconds=verdict.p95(self.buckets),
            lowest_p95_seconds=verdict.lowest_p95(steps),
        )


def check(runner: Runner) -> bool:
    """Refuse a deploy that could not be watched, before any effect.

    Returns:
        Whether nginx' container mounts the counter's sockets. The first deploy after an update must
        not replace an nginx without them, because that would fail requests.

    Raises:
        Failure: if the counter does not answer.
    """
    result = runner.read(counter.read_counts())
    if result.code == counter.TOO_OLD:
        return False
    _parse(result, BEFORE)
    return True


def begin(runner: Runner, slot: str, seconds: float, runbook: str) -> str:
    """Begin a period of a slot; return its name."""
    return _period(runner, counter.begin(slot, seconds), runbook).name


def read_period(runner: Runner, name: str, runbook: str, *, is_last: bool = False) -> Period:
    """Return the counts of a period; the last reading ends it.

    Raises:
        Failure: if the counter does not answer, or has restarted and lost its counts.
    """
    return _period(runner, counter.read_period(name, is_last=is_last), runbook)


def end(runner: Runner, name: str) -> None:
    """End a period. A failure is harmless, because the counter ends the period later anyway."""
    runner.read(counter.read_period(name, is_last=True))


def _period(runner: Runner, command: Command, runbook: str) -> Period:
    answer = _parse(runner.read(command), runbook)
    try:
        facts = answer["period"]
        numbers = {key: facts[key] for key in NUMBERS}
        received = facts["received"] + facts["own"]
        return Period(
            facts["name"], facts["own"], received, facts["lost"], facts["buckets"], numbers
        )
    except (KeyError, TypeError):
        raise blindness(_OTHER_VERSION, runbook) from None


_OTHER_VERSION = (
    "the counter answers in the form of another version: "
    "./scripts/up.sh --apply counter replaces it"
)


def _parse(result: Result, runbook: str) -> dict[str, Any]:
    if result.code == counter.TOO_OLD:
        raise blindness("the container of nginx is older than the counter", runbook)
    if result.code != 0:
        reason = " ".join((result.out + result.err).split())[-200:] or f"exit code {result.code}"
        raise blindness(f"the counter gives no counts: {reason}", runbook)
    try:
        answer: dict[str, Any] = json.loads(result.out)
    except ValueError:
        raise blindness(_OTHER_VERSION, runbook) from None
    return answer


def blindness(reason: str, runbook: str) -> Failure:
    """Return the failure of a watch without counts."""
    return Failure(
        f"cannot watch: {reason}",
        hints=[
            "./scripts/logs.sh counter; ./scripts/up.sh starts it",
            "./scripts/up.sh --apply nginx replaces an nginx that is older than the counter",
            "WATCH_SECONDS=0 in .env deploys without a watch",
        ],
        runbook=runbook,
    )


def read_row(runner: Runner, live: str) -> tuple[bool, str, str]:
    """Return the row of status.sh: the answers of the live slot, and the lost requests.

    The row is not ok if the counter lost more requests than it counted. Errors alone do not matter,
    because a client can cause some.
    """
    counts = _parse(runner.read(counter.read_counts()), "site-down")
    minute = counts["last_minute"]
    answers, errors = minute[live]["answers"], minute[live]["errors"] + minute[UNNAMED]["errors"]
    answers += minute[UNNAMED]["errors"]
    share = errors / answers if answers else 0.0
    latency = verdict.p95(minute[live]["buckets"]) * 1000
    received, lost = counts["received"], counts["lost"]
    began = datetime.fromtimestamp(counts["started"], UTC)
    text = f"{answers} in the last minute, {share:.1%} errors, p95 {latency:.0f} ms"
    text += f"; {lost} of {received + lost} not counted since {began:%m-%d %H:%M}"
    if lost > received:
        text += "; ./scripts/deploy.sh installs a newer configuration of nginx"
    return lost <= received, "requests", text
