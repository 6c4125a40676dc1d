"""`python -m api.check_config`: what the processes would say of their settings; it starts none of them.

In the API's container it judges for the API and the worker, whose settings and secrets are among the API's.

One finding a line, `TIER KEY: reason; fix`, and status 78 where one of them refuses the start. Needs no network.
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
    kinds = KINDS.get(os.environ.get("SLIPWAY_SERVICE", ""), ALL)
    # A key that both read is said once.
    found = dict.fromkeys(finding for kind in kinds for finding in read_settings(kind)[1])
    sys.stdout.writelines(
        f"{finding.tier} {finding.key}: {finding.reason}; {finding.fix}\n" for finding in found
    )
    return EX_CONFIG if any(finding.tier == "critical" for finding in found) else 0


if __name__ == "__main__":
    sys.exit(main())
