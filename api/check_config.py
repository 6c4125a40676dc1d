"""`python -m api.check_config`: what this container's process would say of its settings; it starts nothing.

One finding a line, `TIER KEY: reason; fix`, and status 78 where one of them refuses the start. Needs no network.
"""

import os
import sys

from api.settings import EX_CONFIG, ProcessSettings, Settings, WorkerSettings, read_settings

KINDS: dict[str, type[ProcessSettings]] = {"migrate": ProcessSettings, "worker": WorkerSettings}


def main() -> int:
    kind = KINDS.get(os.environ.get("SLIPWAY_SERVICE", ""), Settings)
    settings, found = read_settings(kind)
    sys.stdout.writelines(f"{finding.tier} {finding.key}: {finding.reason}; {finding.fix}\n" for finding in found)
    return EX_CONFIG if settings is None else 0


if __name__ == "__main__":
    sys.exit(main())
