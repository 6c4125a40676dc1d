"""Runs commands of the backup service and the restore container, and parses their answers.

Such a command prints progress and then its answer, one line of JSON.
Partner: backup/answers.py, which writes it.
"""

import json
from collections.abc import Sequence
from typing import Any

from stack.commands import engine
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Result, Runner

ASK_SECONDS = 180  # pgBackRest waits 20 s for a silent repository, and tries several times
SERVICE = ("python3", "-m", "backup")
ANSWERS = {"result": dict, "error": dict, "rows": list}
# After `git pull` the scripts may be newer than the service, until up.sh --apply replaces it.
UPDATE = "./scripts/up.sh --apply backup starts this checkout's version of it"
Row = tuple[bool, str, str]


def perform(runner: Runner, task: str, seconds: float, kept: str, runbook: str) -> None:
    """Run a task of the schedule now and print its progress; `kept` is a hint about intact data.

    Raises:
        Failure: with the service's observation.
    """
    command = engine.exec_in("backup", *SERVICE, task, timeout_seconds=seconds)
    result = runner.follow(command, format_line)
    if runner.is_dry:
        return
    hints = [kept, "./scripts/status.sh", "./scripts/logs.sh backup"]
    read_result(result, hints=hints, runbook=runbook)


def read_result(result: Result, *, hints: Sequence[str], runbook: str) -> dict[str, Any]:
    """Return the facts of a command that succeeded.

    Raises:
        Failure: with the answer's observation, and its hints before `hints`; or because these
            scripts cannot read the answer.
    """
    answer = _find_answer(result.out)
    if result.code == 0 and "result" in answer:
        return dict(answer["result"])
    reason, advice = _explain(result, answer)
    raise Failure(reason, hints=[*advice, *hints], runbook=runbook)


def read_rows(runner: Runner) -> list[Row]:
    """Return the backup lines of `status.sh`: whether the line is ok, its name, its text."""
    result = runner.read(engine.exec_in("backup", *SERVICE, "status", may_fail=True))
    answer = _find_answer(result.out)
    try:
        return [(bool(row["is_well"]), row["name"], row["text"]) for row in answer["rows"]]
    except (KeyError, TypeError):
        reason, _ = _explain(result, answer)
        return [(False, "last backup", f"no answer from the backup service: {reason}: {UPDATE}")]


def format_line(line: str) -> str:
    """Return a line of a command's output for the operator: a log line's message, or progress."""
    answer = _find_answer(line)
    if answer:
        return "failed" if "error" in answer else "done"
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def list_progress(result: Result) -> list[str]:
    """Return the lines that a command printed before its answer."""
    return [line for line in result.out.splitlines() if not _find_answer(line)]


def refuse_new_database(runner: Runner, project: Project) -> None:
    """Refuse to create an empty database if the repository off the host may have backups.

    Raises:
        Failure: if the repository has backups or does not answer, with the service's hints.
    """
    if runner.is_dry or not project.has_offsite_repository:
        return
    if any(
        service.name == "postgres" and service.state == "running"
        for service in observation.services(runner, project)
    ):
        return
    question = engine.one_shot(
        "backup", *SERVICE, "may-begin", timeout_seconds=ASK_SECONDS, may_fail=True
    )
    result = runner.run(question)
    read_result(result, hints=[], runbook="restore-to-a-new-host")


def _find_answer(output: str) -> dict[str, Any]:
    """Return the last answer in the output, or an empty dict."""
    for line in reversed(output.splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and len(answer) == 1:
            [(key, value)] = answer.items()
            if key in ANSWERS and isinstance(value, ANSWERS[key]):
                return answer
    return {}


def _explain(result: Result, answer: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the reason why there is no result, and hints."""
    error = answer.get("error", {})
    if "observation" in error:
        return str(error["observation"]), [str(hint) for hint in error.get("hints") or []]
    lines = (result.out + "\n" + result.err).strip().splitlines()
    if not lines:
        return f"the backup service gave no answer (exit code {result.code})", [UPDATE]
    last = format_line(lines[-1])
    if result.code == 0 or last.startswith(("{", "[")):
        return f"the answer of the backup service cannot be read: {last}", [UPDATE]
    if last != lines[-1]:  # a line of its log
        return f"the backup service ended with exit code {result.code} after: {last}", [UPDATE]
    return last, [UPDATE]
