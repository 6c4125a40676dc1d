"""`python -m api.deadletters`: lists, retries or discards failed jobs.

scripts/jobs.sh runs it in a separate container.
"""

import argparse
import asyncio
import json
import sys

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.configuring.settings import Settings, load_settings
from api.storing.database import Database
from api.storing.jobs import FailedJob, JobNotFailed, discard_failed, list_failed, retry_failed

MOST_LISTED = 100
ARGUMENT_CHARS = 200  # longer arguments are cut, so that a job takes a line or two


def parser() -> argparse.ArgumentParser:
    """Return the parser of this program's arguments."""
    program = argparse.ArgumentParser(prog="api.deadletters")
    program.add_argument("action", choices=("list", "retry", "discard"))
    program.add_argument("ids", nargs="*", type=int)
    program.add_argument("--all", action="store_true", dest="is_all")
    program.add_argument("--task")
    return program


async def run(settings: Settings, arguments: argparse.Namespace) -> str:
    """Execute the action in one transaction, and return the text to print.

    Raises:
        JobNotFailed: if a named job has not failed, or the named task has no failed job. Nothing
            changes then.
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
            changed_ids = await change(
                connection, None if arguments.is_all else arguments.ids, arguments.task
            )
    finally:
        await database.close()
    return report(arguments, changed_ids)


def listing(failed: list[FailedJob]) -> str:
    """Return one line for each failed job."""
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


def report(arguments: argparse.Namespace, changed_ids: list[int]) -> str:
    """Return how many jobs changed, and the ids of the first 20."""
    word = "returned to the queue" if arguments.action == "retry" else "discarded"
    shown = ", ".join(map(str, changed_ids[:20]))
    text = f"{len(changed_ids)} {word}" + (f": {shown}" if shown else "")
    unchanged = len(set(arguments.ids) - set(changed_ids))
    hint = f"; {unchanged} not changed: a job with the same lock waits already, so discard them"
    return text + (hint if unchanged else "")


def main() -> int:
    """Run the program; return 1 with one line on stderr if it changed nothing."""
    arguments = parser().parse_args()
    settings = load_settings()
    try:
        sys.stdout.write(asyncio.run(run(settings, arguments)) + "\n")
    except JobNotFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except IntegrityError:
        sys.stderr.write(
            "error: a job like one of these was enqueued at the same moment; nothing changed\n"
        )
        return 1
    except SQLAlchemyError as error:
        sys.stderr.write(f"error: Postgres does not answer: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
