"""`backup.sh` and `drill.sh` show the service's progress, and a failure names the reason."""

import json

import pytest
from stack.failure import Failure
from stack.runner import Result
from stack.stories import backup, drill

from backup import answers
from backup import failure as service
from tests.scripts.recording import RecordingRunner


def log(message: str, level: str = "INFO") -> str:
    return json.dumps({"level": level, "message": message, "action": "backup_progress"})


def failed(task: str, reason: str) -> Result:
    """Return the log and the answer of a failed task."""
    text = f"{task}: {reason}"
    error = answers.format_error(service.Failure(text))
    return Result(1, f"{log(f'{task} begins')}\n{log(text, 'ERROR')}\n{error}\n")


def test_the_progress_is_shown_as_text_and_the_kind_is_passed_on(runner: RecordingRunner) -> None:
    done = answers.format_result({"text": "full X"})
    runner.reply("backup full", Result(0, f"{log('full begins')}\nno JSON\n{done}\n"))
    backup.run(runner, is_full=True)
    assert runner.said == ["full begins", "no JSON", "done"]
    runner.reply("backup incremental", Result(0, f"{done}\n"))
    backup.run(runner, is_full=False)
    assert runner.ran[-1].endswith("python3 -m backup incremental")


def test_a_backup_that_fails_shows_the_reason_and_that_the_others_are_kept(
    runner: RecordingRunner,
) -> None:
    runner.reply("backup incremental", failed("incremental", "ERROR: [041]: no room"))
    with pytest.raises(Failure, match=r"\[041\]: no room") as raised:
        backup.run(runner, is_full=False)
    assert "the older backups are kept" in raised.value.hints
    assert raised.value.runbook == "backup-failed-or-too-old"


def test_a_task_that_waited_in_vain_passes_the_advice_on(runner: RecordingRunner) -> None:
    error = answers.format_error(service.Failure("drill is running", ["wait for its end"]))
    runner.reply("backup incremental", Result(1, f"{log('another task is running')}\n{error}\n"))
    with pytest.raises(Failure, match="drill is running") as raised:
        backup.run(runner, is_full=False)
    assert raised.value.hints[0] == "wait for its end"


def test_a_drill_that_fails_shows_that_nothing_was_touched(runner: RecordingRunner) -> None:
    runner.reply("backup drill", failed("drill", "1 rows too many"))
    with pytest.raises(Failure, match="1 rows too many") as raised:
        drill.run(runner, is_offsite=False)
    assert "the live database was not touched" in raised.value.hints[0]


def test_a_drill_off_the_host_is_a_task_and_an_entry_of_its_own(runner: RecordingRunner) -> None:
    runner.reply("backup offsite-drill", failed("offsite-drill", "a file differs"))
    with pytest.raises(Failure, match="a file differs") as raised:
        drill.run(runner, is_offsite=True)
    assert raised.value.runbook == "drill-off-the-host-fails"
