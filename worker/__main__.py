"""`python -m worker`: the processes that run jobs; one is the container's first process, more have a supervisor."""

import signal
import sys

# Before the imports, which take a second: the kernel spares a container's first process the signals it does not handle,
# and a stop would then wait out its whole grace.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import asyncio
import logging.config

from api.configuring.settings import WorkerSettings, load_settings
from api.configuring.validation import log_warnings
from api.observing.logs import log_config
from worker.loop import WorkerLoop
from worker.supervisor import Supervisor


def main() -> None:
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
