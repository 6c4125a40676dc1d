"""`restore.sh` asks first, stops services only after the restore, and undoes a failed exchange."""

import errno
import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from stack.config.project import Project
from stack.failure import NEEDS_A_PERSON, ROLLED_BACK, USAGE, Failure
from stack.https import Answer, Question
from stack.parts import applied, fingerprints, ledger, restorer
from stack.runner import Result
from stack.stories import restore
from stack.stories.restore import Options

from tests.scripts.imitation import check_form, write_secrets
from tests.scripts.recording import RecordingRunner, Reply

MADE = {"label": "20261121-120000F", "text": "everything", "bytes": 10**6}
YES = Options(to="2026-11-21T12:30:00+00:00", is_confirmed=True)


def result(**found: object) -> Result:
    return Result(0, "progress\n" + json.dumps({"result": found}) + "\n")


def failure(text: str) -> Result:
    error = {"observation": text, "hints": ["an older one is good"]}
    return Result(1, "progress\n" + json.dumps({"error": error}) + "\n")


def found(runner: RecordingRunner) -> Result:
    """Return the databases that `tidy` lists; the exchange renames the old database."""
    stamps = [
        named[1]
        for command in runner.ran
        if (named := re.search(r"restore swap --stamp=(\S+)", command))
    ]
    return result(has_database=True, old={f"17.before-{stamp}": 1 for stamp in stamps}, tidied=[])


@pytest.fixture
def stack(runner: RecordingRunner, loaded: Project) -> RecordingRunner:
    write_secrets(loaded)
    services = ("api-blue", "worker-blue", "nginx", "counter", "postgres", "backup", "redis")
    listing = [
        json.dumps({"Service": name, "State": "running", "Health": "healthy"}) for name in services
    ]
    replies: dict[str, Reply] = {
        "docker ps": Result(0),
        "compose ps": Result(0, "\n".join(listing)),
        "docker image inspect": Result(1, err="No such image"),
        "readlink": Result(0, "blue.sock\n"),
        "image.version": Result(0, "r1\n"),
        "backup.restore tidy": lambda: found(runner),
        "backup.restore make": result(**MADE),
        "backup.restore swap": result(),
        "archived_count": Result(0, "t\n"),
    }
    for part, reply in replies.items():
        runner.reply(part, reply)
    runner.door = answering("r1")
    return runner


def answering(release: str) -> Callable[[Question], Answer]:
    return lambda _: Answer(200, "{}", {"X-Slipway-Release": release, "X-Slipway-Slot": "blue"})


def order(stack: RecordingRunner) -> list[str]:
    verbs = (
        "make",
        "stop api",
        "stop postgres",
        "swap --",
        "swap-back",
        "postgres",
        "api.migrate",
        "api-blue",
    )
    return [next((verb for verb in verbs if verb in command), "") for command in stack.ran]


def test_nothing_is_stopped_before_the_restored_database_is_ready(
    stack: RecordingRunner, loaded: Project
) -> None:
    restore.replace(stack, loaded, YES)
    done = [verb for verb in order(stack) if verb]
    assert done == [
        "make",
        "stop api",
        "stop postgres",
        "swap --",
        "postgres",
        "api.migrate",
        "api-blue",
    ]
    assert (ledger.last(loaded) or {})["result"] == "done"
    assert stack.said[-1].startswith("live: release r1")


def test_a_service_that_serves_is_not_replaced_by_an_exchange(
    stack: RecordingRunner, loaded: Project
) -> None:
    """Compose would replace nginx and Redis if one of their settings waits."""
    restore.replace(stack, loaded, YES)
    started = [word for each in stack.ran if "compose up" in each for word in each.split()]
    assert {"postgres", "backup", "api-blue", "worker-blue"} <= set(started)
    assert not {"nginx", "counter", "redis"} & set(started)


def test_on_a_new_host_a_restore_starts_every_service_and_keeps_the_fingerprints(
    stack: RecordingRunner, loaded: Project
) -> None:
    stack.reply("compose ps", Result(0))
    restore.replace(stack, loaded, YES)
    started = {word for each in stack.ran if "compose up" in each for word in each.split()}
    assert {*applied.SERVICES, "api-blue", "worker-blue"} <= started
    assert fingerprints.fingerprint_file(loaded, "backup_key").exists()


def test_a_refusal_says_why_and_touches_nothing(stack: RecordingRunner, loaded: Project) -> None:
    stack.reply("backup.restore make", failure("the segment 7 is damaged"))
    with pytest.raises(Failure, match="the segment 7 is damaged") as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.hints == ["an older one is good", "the database was not touched"]
    assert not [command for command in stack.ran if " stop " in command or "swap" in command]
    assert ledger.last(loaded) is None


def test_no_answer_of_the_container_is_no_success(stack: RecordingRunner, loaded: Project) -> None:
    stack.reply("backup.restore make", Result(0, "progress\n"))
    with pytest.raises(Failure):
        restore.replace(stack, loaded, YES)
    assert not [command for command in stack.ran if " stop " in command]


def test_a_database_that_does_not_start_gives_way_to_the_one_before(
    stack: RecordingRunner, loaded: Project
) -> None:
    fails = iter([Result(1)])
    stack.reply("--wait-timeout 120 postgres", lambda: next(fails, Result(0)))
    with pytest.raises(Failure) as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.code == ROLLED_BACK
    assert [verb for verb in order(stack) if verb][-3:] == ["swap-back", "postgres", "api-blue"]
    assert (ledger.last(loaded) or {})["result"] == "failed"


def test_an_undo_that_fails_too_needs_a_person(stack: RecordingRunner, loaded: Project) -> None:
    stack.reply("--wait-timeout 120 postgres", Result(1, err="no engine"))
    with pytest.raises(Failure) as failed:
        restore.replace(stack, loaded, YES)
    check_form(failed.value)
    assert failed.value.code == NEEDS_A_PERSON
    assert failed.value.hints[-1].startswith("undo failed too: postgres did not become healthy")
    assert (ledger.last(loaded) or {})["result"] == "failed"


def test_where_there_was_no_database_the_restored_one_stays_for_a_person(
    stack: RecordingRunner, loaded: Project
) -> None:
    looks = iter([result(has_database=False)])
    stack.reply("backup.restore tidy", lambda: next(looks, result(has_database=True, old={})))
    stack.reply("--wait-timeout 120 postgres", Result(1))
    with pytest.raises(Failure) as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.code == NEEDS_A_PERSON
    assert "swap-back" not in order(stack)


def test_what_fails_after_the_exchange_says_which_database_serves(
    stack: RecordingRunner, loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ledger.record

    def record_or_fail(*arguments: Any, **facts: Any) -> None:
        if facts["result"] == "done":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(loaded.ledger))
        record(*arguments, **facts)

    monkeypatch.setattr(ledger, "record", record_or_fail)
    with pytest.raises(Failure) as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.code == NEEDS_A_PERSON
    assert failed.value.observation.startswith("the restored database serves, but a later step")


def test_an_exchange_that_failed_starts_the_database_before(
    stack: RecordingRunner, loaded: Project
) -> None:
    stack.reply("backup.restore swap", failure("cannot be exchanged"))
    stack.reply("backup.restore tidy", result(has_database=True, old={}))
    with pytest.raises(Failure, match="cannot be exchanged") as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.code == 1
    assert [verb for verb in order(stack) if verb][-2:] == ["postgres", "api-blue"]


def test_an_exchange_whose_answer_was_lost_is_taken_back(
    stack: RecordingRunner, loaded: Project
) -> None:
    answers = iter([Result(124, err="stopped after 600 s")])
    stack.reply("backup.restore swap", lambda: next(answers, result()))
    with pytest.raises(Failure) as failed:
        restore.replace(stack, loaded, YES)
    assert failed.value.code == ROLLED_BACK
    assert [verb for verb in order(stack) if verb][-3:] == ["swap-back", "postgres", "api-blue"]


def test_a_container_that_a_killed_command_left_is_ended_first(
    stack: RecordingRunner, loaded: Project
) -> None:
    left = iter([Result(0, "c1\n")] * 2)
    stack.reply("docker ps", lambda: next(left, Result(0)))
    stack.reply("docker rm", Result(1, err="removal of container c1 is already in progress"))
    restore.replace(stack, loaded, YES)
    assert (
        stack.ran[:3]
        == ["docker rm --force c1"] * 2
        + [command for command in stack.ran if "tidy" in command][:1]
    )


def test_a_container_that_cannot_be_removed_ends_the_restore_before_it_begins(
    stack: RecordingRunner, loaded: Project
) -> None:
    stack.reply("docker ps", Result(0, "c1\n"))
    stack.reply("docker rm", Result(1, err="device or resource busy"))
    with pytest.raises(Failure, match="containers cannot be removed: c1") as failed:
        restore.replace(stack, loaded, YES)
    assert (failed.value.evidence, failed.value.runbook) == (
        "device or resource busy",
        restorer.RUNBOOK,
    )
    assert set(stack.ran) == {"docker rm --force c1"}


@pytest.mark.parametrize("answer", ["", "no\n", "slipway2\n"])
def test_what_is_not_confirmed_by_the_projects_name_is_not_done(answer: str) -> None:
    with pytest.raises(Failure, match="not confirmed") as failed:
        restore.confirm("slipway", Options(), lambda: answer)
    assert failed.value.code == USAGE
    restore.confirm("slipway", Options(), lambda: "slipway\n")


@pytest.mark.parametrize("command", [restore.replace, restore.discard])
def test_what_replaces_or_deletes_a_database_asks_first(
    stack: RecordingRunner,
    loaded: Project,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[RecordingRunner, Project, Options], None],
) -> None:
    stack.reply("backup.restore tidy", result(has_database=True, old={"17.before-1": 1}, tidied=[]))
    monkeypatch.setattr(restore.confirm, "__defaults__", (lambda: "no\n",))
    with pytest.raises(Failure, match="not confirmed"):
        command(stack, loaded, Options())
    assert [command for command in stack.ran if "tidy" not in command] == []


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("2026-11-21T12:30:00Z", "2026-11-21T12:30:00+00:00"),
        ("2026-11-21 12:30", "2026-11-21T12:30:00+00:00"),
        ("2026-11-21T13:30:00.25+01:00", "2026-11-21T12:30:00.250000+00:00"),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, taken: str) -> None:
    assert restore.moment(text) == taken


def test_a_copy_that_is_there_already_is_not_thrown_away(
    stack: RecordingRunner, loaded: Project
) -> None:
    with pytest.raises(Failure, match="there is a copy beside the database already"):
        restore.beside(stack, loaded, YES)
    assert "make" not in order(stack)
