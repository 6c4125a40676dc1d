"""`python -m api.deadletters`: what scripts/jobs.sh runs, in a container of its own."""

import argparse
import asyncio
import json
import sys

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.configuring.settings import Settings, load_settings
from api.storing.database import Database
from api.storing.jobs import FailedJob, JobNotFailed, discard_failed, list_failed, retry_failed

MOST_LISTED = 100
ARGUMENT_CHARS = 200  # of a line on a terminal


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="api.deadletters")
    made.add_argument("action", choices=("list", "retry", "discard"))
    made.add_argument("ids", nargs="*", type=int)
    made.add_argument("--all", action="store_true", dest="is_all")
    made.add_argument("--task")
    return made


async def run(settings: Settings, arguments: argparse.Namespace) -> str:
    """Do it in one transaction, and return what to print.

    Raises:
        JobNotFailed: where a job or a task that is named has not failed; then nothing is changed.
    """
    database = Database(settings, pool_size=1)
    try:
        async with database.transaction() as connection:
            failed = await list_failed(connection, arguments.task, MOST_LISTED)
            if arguments.task and not failed:
                raise JobNotFailed(f"no job of the task {arguments.task} has failed")
            if arguments.action == "list":
                return listing(failed)
            change = retry_failed if arguments.action == "retry" else discard_failed
            done = await change(
                connection, None if arguments.is_all else arguments.ids, arguments.task
            )
    finally:
        await database.close()
    return report(arguments, done)


def listing(failed: list[FailedJob]) -> str:
    lines = []
    for job in failed:
        when = f"{job.failed_at:%Y-%m-%d %H:%M:%S} UTC" if job.failed_at else "unknown"
        arguments = json.dumps(job.arguments)[:ARGUMENT_CHARS]
        facts = (
            f"{job.attempts} attempts, failed {when}, request {job.request_id or '-'}, {arguments}"
        )
        lines.append(f"{job.id}  {job.task_name}  {facts}")
    if len(failed) == MOST_LISTED:
        lines.append(f"the newest {MOST_LISTED}; ./scripts/status.sh counts them all")
    return "\n".join(lines) or "no job has failed"


def report(arguments: argparse.Namespace, done: list[int]) -> str:
    word = "given back to the worker" if arguments.action == "retry" else "discarded"
    text = f"{len(done)} {word}" + (f": {', '.join(map(str, done[:20]))}" if done else "")
    left = len(set(arguments.ids) - set(done))
    return text + (f"; {left} left alone: one like it waits already, so discard it" if left else "")


def main() -> int:
    arguments = parser().parse_args()
    settings = load_settings()
    try:
        sys.stdout.write(asyncio.run(run(settings, arguments)) + "\n")
    except JobNotFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except IntegrityError:
        sys.stderr.write(
            "error: a job like one of these was enqueued at the same moment; nothing was changed\n"
        )
        return 1
    except SQLAlchemyError as error:
        sys.stderr.write(f"error: Postgres does not answer: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
