"""The findings of the preflight, and their refusal. Knows nothing of the host."""

from collections.abc import Iterable
from dataclasses import dataclass

from stack.failure import Failure

CRITICAL, WARNING = "critical ", "warning "
UNTOUCHED = "nothing was touched"


@dataclass(frozen=True)
class Finding:
    """One fault of the wanted state.

    Attributes:
        subject: the key of `.env`, or the part of the host.
        fault: the rest of a sentence, with the observed values.
        fix: the operator's fix.
        runbook: a heading of the runbook.
        is_critical: whether a command that needs this part must refuse.
        evidence: the output of the program that found it.
    """

    subject: str
    fault: str
    fix: str
    runbook: str = "boot-refused-by-the-configuration"
    is_critical: bool = True
    evidence: str = ""

    def __str__(self) -> str:
        """Return the line of `check-config.sh`."""
        tier = CRITICAL if self.is_critical else WARNING
        return f"{tier}{self.subject}: {self.fault}; {self.fix}"


def refuse(findings: Iterable[Finding], effect: str = UNTOUCHED) -> list[str]:
    """Return the warnings, each on a line.

    Args:
        effect: the hint that names the effect of the command so far.

    Raises:
        Failure: with every critical finding.
    """
    listed = list(findings)
    critical = [each for each in listed if each.is_critical]
    if critical:
        raise Failure(
            "; ".join(f"{each.subject}: {each.fault}" for each in critical),
            hints=[*dict.fromkeys(each.fix for each in critical), effect],
            runbook=critical[0].runbook,
            evidence="".join(each.evidence for each in critical),
        )
    return [f"{each.subject}: {each.fault}" for each in listed]
