"""`python -m worker`: the process that runs jobs."""

import asyncio
import logging.config

from api.logs import log_config
from api.settings import WorkerSettings, load_settings
from worker.loop import WorkerLoop


async def main(settings: WorkerSettings) -> None:
    await WorkerLoop(settings).run()


if __name__ == "__main__":
    settings = load_settings(WorkerSettings)
    logging.config.dictConfig(log_config(settings))
    asyncio.run(main(settings))
