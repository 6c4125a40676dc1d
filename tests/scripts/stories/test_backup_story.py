"""`backup.sh` shows the service's progress and its reason, and status.sh never takes silence for health."""

import json
from dataclasses import replace

import pytest
from stack.config.project import Project
from stack.failure import Failure
from stack.runner import Result
from stack.stories import backup

from tests.scripts.recording import RecordingRunner


def line(message: str, level: str = "INFO") -> str:
    return json.dumps({"level": level, "message": message, "action": "backup_progress"})


def test_the_progress_is_told_as_text_and_the_kind_is_passed_on(runner: RecordingRunner) -> None:
    runner.reply("backup full", Result(0, f"{line('full begins')}\nno JSON\n"))
    backup.run(runner, is_full=True)
    assert runner.said == ["full begins", "no JSON"]
    backup.run(runner, is_full=False)
    assert runner.ran[-1].endswith("python3 -m backup incremental")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (
            Result(1, f"{line('begins')}\n{line('incremental: ERROR: [041]: no room', 'ERROR')}\n"),
            r"\[041\]: no room",
        ),
        (Result(1, "", '{"error": "drill is running", "hints": []}\n'), "drill is running"),
        (Result(1, "", 'service "backup" is not running\n'), "is not running"),
        (Result(137), "gave no answer"),
    ],
)
def test_a_backup_that_fails_says_why_and_that_the_others_are_kept(
    runner: RecordingRunner, result: Result, reason: str
) -> None:
    runner.reply("backup incremental", result)
    with pytest.raises(Failure, match=reason) as failed:
        backup.run(runner, is_full=False)
    assert "the backups from before are kept" in failed.value.hints
    assert failed.value.runbook == "backup-failed-or-too-old"


def test_a_drill_says_that_nothing_was_touched(runner: RecordingRunner) -> None:
    runner.reply("backup drill", Result(1, f"{line('drill: 1 rows too many', 'ERROR')}\n"))
    with pytest.raises(Failure, match="1 rows too many") as failed:
        backup.drill(runner)
    assert "nothing that serves was touched" in failed.value.hints[0]


def test_a_drill_off_the_host_is_a_task_and_an_entry_of_its_own(runner: RecordingRunner) -> None:
    runner.reply(
        "backup offsite-drill", Result(1, f"{line('offsite-drill: a file differs', 'ERROR')}\n")
    )
    with pytest.raises(Failure, match="a file differs") as failed:
        backup.drill(runner, is_offsite=True)
    assert failed.value.runbook == "drill-off-the-host-fails"


def test_the_lines_of_the_service_are_shown(runner: RecordingRunner) -> None:
    told = [
        {"name": "archive", "is_well": False, "text": "3 s ago"},
        {"name": "drill", "is_well": True, "text": "-"},
    ]
    runner.reply("backup status", Result(0, json.dumps(told)))
    assert backup.rows(runner) == [(False, "archive", "3 s ago"), (True, "drill", "-")]


@pytest.mark.parametrize(
    "answer",
    [Result(1, err='service "backup" is not running\n'), Result(0, ""), Result(0, '{"a": 1}')],
)
def test_a_service_that_says_nothing_is_not_well(runner: RecordingRunner, answer: Result) -> None:
    runner.reply("backup status", answer)
    ((is_well, name, text),) = backup.rows(runner)
    assert (is_well, name) == (False, "last backup")
    assert "does not answer" in text


@pytest.mark.parametrize("is_running", [True, False])
def test_a_new_database_is_refused_with_the_advice_of_the_service(
    runner: RecordingRunner, loaded: Project, is_running: bool
) -> None:
    configured = replace(loaded, values={**loaded.values, "OFFSITE_TYPE": "sftp"})
    found = {"Service": "postgres", "State": "running" if is_running else "exited"}
    runner.reply("docker compose ps", Result(0, json.dumps(found)))
    told = {"error": "there are backups off the host", "hints": ["bring them back"]}
    runner.reply("backup may-begin", Result(1, "", f"a line of the engine\n{json.dumps(told)}\n"))
    if is_running:
        backup.refuse_new_database(runner, configured)
        assert runner.ran == []
        return
    with pytest.raises(Failure, match="there are backups off the host") as failed:
        backup.refuse_new_database(runner, configured)
    assert (failed.value.hints, failed.value.runbook) == (
        ["bring them back"],
        "restore-to-a-new-host",
    )
    backup.refuse_new_database(runner, loaded)
    assert len(runner.ran) == 1, "without a place nothing is asked"
