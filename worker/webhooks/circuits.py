"""Circuit breakers: a host that gives no answer is left alone for a while, so that nobody waits for it in vain.

Known to one worker process alone: another one, or this one after a restart, finds out by itself.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

logger = logging.getLogger(__name__)

FAILURES_TO_OPEN = (
    5  # in a row; chosen: one lost packet or one restart of the receiver does not reach it
)
OPEN_SECONDS = 60.0  # then one attempt is let through; its answer closes the circuit, its failure opens it again
FORGET_SECONDS = 3600.0  # a host that nobody asked for so long is one that nobody waits for

# Without the host as a label: the hosts are the users' to choose, and without number.
OPENED = Counter(
    "slipway_webhook_circuit_opened_total", "Circuits opened: a host gave no answer several times."
)
OPEN = Gauge("slipway_webhook_circuits_open", "Hosts that are left alone at the moment.")


@dataclass
class Circuit:
    failures: int = 0
    open_until: float = 0.0


class Circuits:
    """By host and port. A host counts as dead when it does not answer; an answer of 500 is an answer.

    What many users share, such as a service that takes webhooks for all its customers, is not closed for all of them
    by the one whose address answers with errors.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, Circuit] = {}

    def lets_through(self, host: str) -> bool:
        """Tell whether to try; of an open circuit whose time is over, only the first that asks may."""
        circuit = self._failing.get(host)
        if circuit is None or circuit.failures < FAILURES_TO_OPEN:
            return True
        if self._clock() < circuit.open_until:
            return False
        circuit.open_until = self._clock() + OPEN_SECONDS
        return True

    def answered(self, host: str) -> None:
        circuit = self._failing.pop(host, None)
        if circuit and circuit.failures >= FAILURES_TO_OPEN:
            self._count_open()
            logger.info("host answers again", extra={"action": "circuit_closed", "host": host})

    def gave_no_answer(self, host: str) -> None:
        circuit = self._failing.setdefault(host, Circuit())
        circuit.failures += 1
        circuit.open_until = self._clock() + OPEN_SECONDS
        forgotten = self._clock() - FORGET_SECONDS
        self._failing = {
            name: known for name, known in self._failing.items() if known.open_until > forgotten
        }
        if circuit.failures == FAILURES_TO_OPEN:
            OPENED.inc()
            self._count_open()
            logger.warning(
                "host gives no answer, left alone for %d s",
                OPEN_SECONDS,
                extra={"action": "circuit_opened", "host": host},
            )

    def _count_open(self) -> None:
        OPEN.set(sum(circuit.failures >= FAILURES_TO_OPEN for circuit in self._failing.values()))
