"""`jobs.sh` runs the live release's program, and prints the reason of a failure."""

import pytest
from stack.config.project import Project
from stack.failure import USAGE, Failure
from stack.runner import Result
from stack.stories import jobs

from tests.scripts.imitation import Host

PROGRAM = "run --rm --no-deps --no-TTY api-blue python -m api.deadletters"


def run(
    host: Host, project: Project, action: str, *ids: int, is_all: bool = False, task: str = ""
) -> None:
    jobs.run(host, project, action, list(ids), is_all=is_all, task=task)


def test_the_list_changes_nothing_and_prints_no_command(loaded: Project) -> None:
    host = Host()
    host.reply(f"{PROGRAM} list --task exports.write", Result(0, "what it says\n"))
    run(host, loaded, "list", task="exports.write")
    assert (host.ran, host.said) == ([], ["what it says"])


@pytest.mark.parametrize("action", ["retry", "discard"])
@pytest.mark.parametrize(
    ("ids", "task", "words"),
    [((3, 5), "", "3 5"), ((), "", "--all"), ((), "exports.write", "--all --task exports.write")],
)
def test_what_changes_something_is_one_printed_command(
    loaded: Project, action: str, ids: tuple[int, ...], task: str, words: str
) -> None:
    host = Host()
    host.reply(PROGRAM, Result(0, "what it says\n"))
    run(host, loaded, action, *ids, is_all=not ids, task=task)
    assert (host.ran, host.said) == (
        [f"docker compose {PROGRAM} {action} {words}"],
        ["what it says"],
    )


@pytest.mark.parametrize(
    ("action", "ids", "is_all", "task"),
    [
        ("list", (1,), False, ""),
        ("list", (), True, ""),
        ("retry", (), False, ""),
        ("retry", (1,), True, ""),
        ("discard", (1,), False, "exports.write"),
        ("discard", (), False, "exports.write"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_before_anything_is_asked(
    loaded: Project, action: str, ids: tuple[int, ...], is_all: bool, task: str
) -> None:
    host = Host()
    with pytest.raises(Failure) as raised:
        run(host, loaded, action, *ids, is_all=is_all, task=task)
    assert raised.value.code == USAGE
    assert (host.ran, host.asked) == ([], [])


def test_a_job_that_has_not_failed_is_named(loaded: Project) -> None:
    host = Host()
    host.reply(PROGRAM, Result(1, err="error: job 5 is succeeded\n"))
    with pytest.raises(Failure) as raised:
        run(host, loaded, "retry", 5)
    assert (raised.value.observation, raised.value.code) == ("job 5 is succeeded", 1)
    assert raised.value.runbook == "failed-jobs"
    assert "nothing was changed" in raised.value.hints


def test_a_release_that_does_not_start_is_named(loaded: Project) -> None:
    host = Host()
    host.reply(PROGRAM, Result(1, err="no such image\n"))
    with pytest.raises(Failure, match="the release in slot blue cannot be asked: no such image"):
        run(host, loaded, "list")
