"""The scripts parse the answers that the backup service writes, and no other text."""

import json
from dataclasses import replace

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.parts import backup_service
from stack.runner import Result

from backup import answers
from backup import failure as service
from tests.scripts.recording import RecordingRunner

LOG = json.dumps({"level": "ERROR", "message": "full: no room", "action": "backup_task_failed"})
ROWS = [
    {"name": "archive", "is_well": False, "text": "3 s ago"},
    {"name": "drill", "is_well": True, "text": "-"},
]
# Answers of another version of the service.
FOREIGN = [
    json.dumps(ROWS),
    json.dumps({"error": "drill is running", "hints": []}),
    json.dumps({"answer": {}}),
    json.dumps({"result": "done"}),
]


def read(result: Result) -> dict[str, object]:
    return backup_service.read_result(result, hints=["nothing was touched"], runbook="restore-all")


def refusal(result: Result) -> Failure:
    with pytest.raises(Failure) as raised:
        read(result)
    return raised.value


def test_the_facts_of_a_result_are_read_whatever_stands_before_them() -> None:
    facts = {"label": "20261121-120000F", "bytes": 7, "ranges": [["a", "b"]]}
    for before in ("", "progress\n", f"{LOG}\n", f"{FOREIGN[0]}\n"):
        assert read(Result(0, before + answers.format_result(facts) + "\n")) == facts


def test_a_line_of_the_log_is_no_answer_whatever_its_keys() -> None:
    log = json.dumps({"result": {"a": 1}, "level": "INFO"})
    assert read(Result(0, f"{answers.format_result({'b': 2})}\n{log}\n")) == {"b": 2}


def test_an_error_is_read_with_its_hints_before_the_scripts_own() -> None:
    error = answers.format_error(service.Failure("a segment is damaged", ["an older one is good"]))
    raised = refusal(Result(1, f"{LOG}\n{error}\n", "a line of the engine\n"))
    assert raised.observation == "a segment is damaged"
    assert raised.hints == ["an older one is good", "nothing was touched"]
    assert raised.runbook == "restore-all"


def test_an_exit_code_outweighs_a_result() -> None:
    raised = refusal(Result(1, answers.format_result({}) + "\n", "killed\n"))
    assert raised.observation == "killed"


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("code", [0, 1])
def test_an_answer_of_another_version_is_an_error_that_names_the_command(
    form: str, code: int
) -> None:
    """After `git pull` the scripts may be newer than the running service."""
    for result in (Result(code, f"{LOG}\n{form}\n"), Result(code, f"{LOG}\n", f"{form}\n")):
        raised = refusal(result)
        assert "the answer of the backup service cannot be read: " in raised.observation
        assert raised.hints[0].startswith("./scripts/up.sh")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Result(1, "", 'service "backup" is not running\n'), 'service "backup" is not running'),
        (Result(137), "the backup service gave no answer (exit code 137)"),
        (Result(137, f"{LOG}\n"), "ended with exit code 137 after: full: no room"),
        (Result(0), "the backup service gave no answer (exit code 0)"),
        (Result(0, "progress\n"), "cannot be read: progress"),
    ],
)
def test_a_service_that_gives_no_answer_has_not_succeeded(result: Result, reason: str) -> None:
    raised = refusal(result)
    assert reason in raised.observation
    assert raised.hints[0].startswith("./scripts/up.sh")


def test_the_lines_of_the_service_are_read(runner: RecordingRunner) -> None:
    runner.reply("backup status", Result(0, answers.format_rows(ROWS)))
    assert backup_service.read_rows(runner) == [
        (False, "archive", "3 s ago"),
        (True, "drill", "-"),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Result(1, err='service "backup" is not running\n'),
        Result(0, ""),
        Result(0, '{"a": 1}'),
        Result(0, FOREIGN[0]),
        Result(0, answers.format_rows([{"name": "archive"}])),
        Result(1, answers.format_error(service.Failure("the service does not answer"))),
    ],
)
def test_a_service_without_readable_lines_is_not_well(
    runner: RecordingRunner, answer: Result
) -> None:
    runner.reply("backup status", answer)
    ((is_well, name, text),) = backup_service.read_rows(runner)
    assert (is_well, name) == (False, "last backup")
    assert text.startswith("no answer from the backup service: ")
    assert "./scripts/up.sh" in text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (LOG, "full: no room"),
        ("recover to lsn 0/3", "recover to lsn 0/3"),
        (answers.format_result({"a": 1}), "done"),
        (answers.format_error(service.Failure("no room")), "failed"),
        ("7", "7"),
    ],
)
def test_a_line_is_shown_as_text(line: str, shown: str) -> None:
    assert backup_service.format_line(line) == shown


def test_the_progress_is_all_but_the_answer() -> None:
    result = Result(0, f"repository 1\n  a backup\n{answers.format_result({})}\n")
    assert backup_service.list_progress(result) == ["repository 1", "  a backup"]


def configure(project: Project) -> Project:
    return replace(project, values={**project.values, "OFFSITE_TYPE": "sftp"})


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_new_database_is_refused_with_the_advice_of_the_service(
    runner: RecordingRunner, loaded: Project, state: str
) -> None:
    found = {"Service": "postgres", "State": state}
    runner.reply("docker compose ps", Result(0, json.dumps(found)))
    error = answers.format_error(
        service.Failure("there are backups off the host", ["bring them back"])
    )
    runner.reply("backup may-begin", Result(1, f"{error}\n", "a line of the engine\n"))
    if state == "running":
        backup_service.refuse_new_database(runner, configure(loaded))
        assert runner.ran == []
        return
    with pytest.raises(Failure, match="there are backups off the host") as raised:
        backup_service.refuse_new_database(runner, configure(loaded))
    assert raised.value.hints == ["bring them back"]
    assert raised.value.runbook == "restore-to-a-new-host"
    backup_service.refuse_new_database(runner, loaded)
    assert len(runner.ran) == 1, "the script sent a query, although the settings name no repository"


def test_a_new_database_may_begin_where_the_service_allows_it(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("docker compose ps", Result(0, ""))
    runner.reply("backup may-begin", Result(0, answers.format_result({}) + "\n"))
    backup_service.refuse_new_database(runner, configure(loaded))
    assert runner.ran[-1].endswith("run --rm --no-deps --no-TTY backup python3 -m backup may-begin")
