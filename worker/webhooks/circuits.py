"""Circuit breakers: a host that does not answer gets no attempts for a while.

Each worker process has its own circuits, and starts with none after a restart.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

logger = logging.getLogger(__name__)

# In a row. Chosen: a lost packet or a restart of the receiver causes fewer.
FAILURES_TO_OPEN = 5
# After this one attempt may pass. An answer closes the circuit, and a failure opens it again.
OPEN_SECONDS = 60.0
FORGET_SECONDS = 3600.0  # a host without attempts for this long is forgotten

# Without the host as a label: users choose the hosts, so their number has no bound.
OPENED = Counter(
    "slipway_webhook_circuit_opened_total", "Circuits opened: a host gave no answer several times."
)
OPEN = Gauge("slipway_webhook_circuits_open", "Hosts that get no attempts at the moment.")


@dataclass
class Circuit:
    """The failures of a host in a row, and the monotonic second until which it gets no attempt."""

    failures: int = 0
    open_until: float = 0.0


class Circuits:
    """The circuits of this process, by host and port.

    Only a missing answer is a failure of the host; an answer of 500 is an answer. So one user's
    broken URL does not stop the deliveries to a service that receives webhooks for many customers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, Circuit] = {}

    def lets_through(self, host: str) -> bool:
        """Tell whether to try this host; after OPEN_SECONDS only the first caller may."""
        circuit = self._failing.get(host)
        if circuit is None or circuit.failures < FAILURES_TO_OPEN:
            return True
        if self._clock() < circuit.open_until:
            return False
        circuit.open_until = self._clock() + OPEN_SECONDS
        return True

    def answered(self, host: str) -> None:
        """Close the circuit of a host."""
        circuit = self._failing.pop(host, None)
        if circuit and circuit.failures >= FAILURES_TO_OPEN:
            self._count_open()
            logger.info("host answers again", extra={"action": "circuit_closed", "host": host})

    def gave_no_answer(self, host: str) -> None:
        """Count a failure, and open the circuit after FAILURES_TO_OPEN of them."""
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
                "host gives no answer, no attempts for %d s",
                OPEN_SECONDS,
                extra={"action": "circuit_opened", "host": host},
            )

    def _count_open(self) -> None:
        OPEN.set(sum(circuit.failures >= FAILURES_TO_OPEN for circuit in self._failing.values()))
