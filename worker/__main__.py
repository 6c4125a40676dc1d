"""`python -m worker`: the processes that run jobs.

A single worker process is the container's first process; several have a supervisor as their parent.
"""

import signal
import sys

# Before the imports, which take a second: the kernel delivers a signal to a container's first
# process only if the process handles it. Otherwise a stop would take the whole stop_grace_period.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import asyncio
import logging.config

from api.configuring.settings import WorkerSettings, load_settings
from api.configuring.validation import log_warnings
from api.observing.logs import log_config
from worker.loop import WorkerLoop
from worker.supervisor import Supervisor


def main() -> None:
    """Run the worker until a signal ends it."""
    settings = load_settings(WorkerSettings)
    logging.config.dictConfig(log_config(settings))
    log_warnings(dict(settings))

    def work(process: int) -> None:
        asyncio.run(WorkerLoop(settings, process).run())

    if settings.worker_processes == 1:
        work(0)
    else:
        Supervisor(settings.worker_processes, work).run()


if __name__ == "__main__":
    main()
