"""The story of `jobs.sh`: lists, retries and discards jobs that failed for good.

A throw-away container runs the live release's code: the worker may be down, and a process inside
the API's container would use the API's memory.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stack import command_line
from stack.commands import engine
from stack.config.project import Project, load
from stack.failure import USAGE, Failure
from stack.parts import last_line, observation
from stack.runner import Runner

ACTIONS = ("list", "retry", "discard")
RUNBOOK = "failed-jobs"


def run(
    runner: Runner, project: Project, action: str, ids: list[int], *, is_all: bool, task: str
) -> None:
    """Run the action in one transaction: if a named job has not failed for good, nothing changes.

    Raises:
        Failure: with the reason.
    """
    _check_usage(action, ids, is_all=is_all, task=task)
    slot = observation.live_slot(runner, project)
    words = [*map(str, ids), *(["--all"] if is_all else []), *(["--task", task] if task else [])]
    command = ["python", "-m", "api.deadletters", action, *words]
    one_shot = engine.one_shot(f"api-{slot}", *command, may_fail=True)
    result = runner.read(one_shot) if action == "list" else runner.run(one_shot)
    if result.code != 0:
        observed = [
            line.removeprefix("error: ")
            for line in result.err.splitlines()
            if line.startswith("error: ")
        ]
        hints = ["./scripts/jobs.sh list shows the failed jobs"]
        hints += ["nothing was changed"] if observed else ["./scripts/status.sh"]
        raise Failure(
            observed[0]
            if observed
            else f"the release in slot {slot} cannot be asked: {result.err.strip()[-200:]}",
            hints=hints,
            runbook=RUNBOOK,
        )
    runner.say(result.out.rstrip())


def _check_usage(action: str, ids: list[int], *, is_all: bool, task: str) -> None:
    fault = ""
    if action == "list" and (ids or is_all):
        fault = "list accepts only --task"
    elif action != "list" and bool(ids) == is_all:
        fault = f"{action} needs the ids of jobs, or --all"
    elif task and ids:
        fault = "--task goes with --all, not with ids"
    if fault:
        raise Failure(fault, hints=["./scripts/jobs.sh --help"], code=USAGE)


COMMAND = "jobs"
HELP = "list, retry or discard the jobs that failed for good"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `jobs.sh`."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="default: list")
    parser.add_argument(
        "ids",
        nargs="*",
        type=command_line.positive,
        metavar="ID",
        help="ids of failed jobs, as `list` shows them",
    )
    parser.add_argument("--all", action="store_true", help="all failed jobs, instead of ids")
    parser.add_argument(
        "--task", default="", metavar="NAME", help="with list or --all: of one task only"
    )


def main(runner: Runner, arguments: Namespace, root: Path) -> int:
    """Run `jobs.sh`."""
    project, ids = load(root), arguments.ids
    run(runner, project, arguments.action, ids, is_all=arguments.all, task=arguments.task)
    runner.display.report(last_line.text(runner, root))
    return 0
