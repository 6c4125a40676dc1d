"""`python -m api.check_config`: checks the settings as each process does at its start.

In the API's container it checks the settings of both the API and the worker: the API has every
setting and secret of the worker. It starts no process and needs no network.

It prints one finding per line, `TIER KEY: reason; fix`, and exits with 78 if a process would refuse
to start.
"""

import os
import sys

from api.configuring.settings import (
    EX_CONFIG,
    ProcessSettings,
    Settings,
    WorkerSettings,
    read_settings,
)

KINDS: dict[str, tuple[type[ProcessSettings], ...]] = {
    "migrate": (ProcessSettings,),
    "worker": (WorkerSettings,),
}
ALL = (Settings, WorkerSettings)


def main() -> int:
    """Print the findings of the service in SLIPWAY_SERVICE; return the exit code."""
    kinds = KINDS.get(os.environ.get("SLIPWAY_SERVICE", ""), ALL)
    # A key that both processes read is printed once.
    findings = dict.fromkeys(finding for kind in kinds for finding in read_settings(kind)[1])
    sys.stdout.writelines(
        f"{finding.tier} {finding.key}: {finding.reason}; {finding.fix}\n" for finding in findings
    )
    return EX_CONFIG if any(finding.tier == "critical" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
