"""`python -m worker`: the process that runs jobs."""

import asyncio
import logging.config

from api.logs import log_config
from api.settings import WorkerSettings, load_settings
from api.validation import log_warnings
from worker.loop import WorkerLoop


async def main(settings: WorkerSettings) -> None:
    await WorkerLoop(settings).run()


if __name__ == "__main__":
    settings = load_settings(WorkerSettings)
    logging.config.dictConfig(log_config(settings))
    log_warnings(dict(settings))
    asyncio.run(main(settings))
