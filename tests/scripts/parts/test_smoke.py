"""The smoke test sends the release's own requests, and prints neither a password nor a token."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stack.commands.command import Command
from stack.config.project import Project
from stack.config.service import Request
from stack.failure import Failure
from stack.parts import smoke
from stack.runner import Result

from tests.scripts.recording import RecordingRunner

SERVICE = """
[first_start]
command = ["make-user"]
credentials = { password = "{random}" }

[[web.smoke]]
path = "/closed"
status = 401

[[web.smoke]]
method = "POST"
path = "/login"
body = "{first_user}"
take = { token = "token" }
skip_on = [401]

[[web.smoke]]
path = "/mine"
headers = { Authorization = "Bearer {token}" }
"""
USER = '{"password": "hunter2"}'


@dataclass
class Slot(RecordingRunner):
    """A slot whose status depends on the path; the bodies of the requests are recorded."""

    service: str = SERVICE
    statuses: dict[str, int] = field(
        default_factory=lambda: {"/readyz": 200, "/closed": 401, "/login": 200, "/mine": 200}
    )
    body: str = '{"token": "t1"}'
    release: str = "r1"
    bodies: dict[str, str] = field(default_factory=dict)

    def read(self, command: Command) -> Result:
        argv = command.argv
        self.asked.append(" ".join(argv))
        if "service.toml" in argv[-1]:
            return Result(0, self.service)
        path = argv[-1].removeprefix("http://127.0.0.1:8084")
        self.bodies[path] = command.stdin
        head = f"HTTP/1.1 {self.statuses[path]} .\r\nX-Slipway-Release: {self.release}\r\n\r\n"
        return Result(0, head + self.body)

    @property
    def paths(self) -> list[str]:
        return list(self.bodies)


@pytest.fixture
def project(loaded: Project) -> Project:
    loaded.secrets.mkdir(exist_ok=True)
    loaded.first_user.write_text(USER, encoding="utf-8")
    return loaded


def with_paths(project: Project, paths: str) -> Project:
    return Project(project.root, {**project.values, "SMOKE_PATHS": paths})


def failure(slot: Slot, project: Project) -> Failure:
    with pytest.raises(Failure) as failed:
        smoke.check(slot, project, "green", "r1")
    assert failed.value.runbook == "deploy-failed-before-the-switch"
    return failed.value


def test_each_request_is_sent_in_order_with_what_an_earlier_answer_gave(project: Project) -> None:
    slot = Slot()
    assert smoke.check(slot, project, "green", "r1") == "3 answers as expected"
    assert slot.paths == ["/closed", "/login", "/mine"]
    assert slot.bodies["/login"] == USER
    assert "--header Authorization: Bearer t1" in slot.asked[-1]
    assert "--request POST" in next(asked for asked in slot.asked if asked.endswith("/login"))
    assert all("--header Host: localhost" in asked for asked in slot.asked if "curl" in asked)


def test_the_password_is_no_argument_of_a_program(project: Project) -> None:
    slot = Slot()
    smoke.check(slot, project, "green", "r1")
    assert "hunter2" not in "".join(slot.asked)


def test_the_release_in_the_slot_is_asked_for_its_own_list(project: Project) -> None:
    """The checkout may be newer than the release, as in a rollback."""
    slot = Slot(service="[[web.smoke]]\npath = '/mine'\n")
    assert smoke.check(slot, project, "green", "r1") == "1 answers as expected"
    assert slot.paths == ["/mine"]
    assert "exec --no-TTY api-green" in slot.asked[0]


def test_a_release_from_before_the_file_is_asked_whether_it_is_ready(project: Project) -> None:
    slot = Slot(service="")
    assert smoke.check(slot, project, "green", "r1") == "1 answers as expected"
    assert slot.paths == ["/readyz"]


def test_smoke_paths_are_asked_besides(project: Project) -> None:
    slot = Slot(service="")
    slot.statuses |= {"/more": 204}
    assert smoke.check(slot, with_paths(project, "/more=204"), "green", "r1")
    assert slot.paths == ["/readyz", "/more"]
    slot.statuses["/more"] = 200
    failed = failure(slot, with_paths(project, "/more=204"))
    assert "/more answered 200 from release 'r1', expected 204" in failed.observation


def test_without_a_first_user_the_requests_that_need_one_are_left_out(project: Project) -> None:
    project.first_user.unlink()
    slot = Slot()
    ended = smoke.check(slot, project, "green", "r1")
    assert ended == "1 answers as expected; left out: POST /login with first_user, /mine with token"
    assert slot.paths == ["/closed"]


def test_a_first_user_who_was_removed_fails_no_deploy(project: Project) -> None:
    slot = Slot()
    slot.statuses["/login"] = 401
    ended = smoke.check(slot, project, "green", "r1")
    left_out = "POST /login with first_user (HTTP 401), /mine with token"
    assert ended == f"1 answers as expected; left out: {left_out}"


@pytest.mark.parametrize("name", ["/closed", "/login with first_user", "/mine with token"])
def test_an_answer_with_another_status_is_a_failure_that_names_the_request(
    project: Project, name: str
) -> None:
    path = name.partition(" ")[0]
    slot = Slot(body='{"token": "t1"}')
    slot.statuses[path] = 500
    failed = failure(slot, project)
    assert f"{name} answered 500 from release 'r1'" in failed.observation
    assert slot.paths[-1] == path


def test_an_answer_of_another_release_is_a_failure_and_shows_no_token(project: Project) -> None:
    slot = Slot(service=SERVICE.replace('path = "/closed"\nstatus = 401', 'path = "/readyz"'))
    slot.release = "r0"
    assert "answered 200 from release 'r0', expected 200" in failure(slot, project).observation
    slot.service = SERVICE.replace('path = "/closed"\nstatus = 401\n\n[[web.smoke]]\n', "")
    failed = failure(slot, project)
    assert "POST /login with first_user answered 200 from release 'r0'" in failed.observation
    assert "t1" not in str(failed)


def test_an_answer_without_what_is_taken_is_a_failure(project: Project) -> None:
    failed = failure(Slot(body=json.dumps({"other": "t1"})), project)
    assert (
        "POST /login with first_user answered 200, but the answer has no token"
        in failed.observation
    )
    assert "t1" not in str(failed)


def test_a_release_that_cannot_show_its_list_is_a_failure(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("service.toml", Result(1, err="container is not running\n"))
    with pytest.raises(Failure, match=r"does not show its service\.toml: container is not running"):
        smoke.check(runner, loaded, "green", "r1")


def test_what_the_release_s_file_has_wrong_is_named_with_its_slot(
    runner: RecordingRunner, loaded: Project
) -> None:
    runner.reply("service.toml", Result(0, "[app]\n"))
    with pytest.raises(Failure, match=r"service\.toml of the release in slot green cannot be used"):
        smoke.check(runner, loaded, "green", "r1")


def test_the_list_is_read_where_the_release_is(tmp_path: Path, runner: RecordingRunner) -> None:
    """In an image without service.toml the shell command prints nothing and exits with 0."""
    runner.reply("api-green", Result(0))
    smoke.read_service(runner, "green")
    question = runner.asked[0].partition("sh -c ")[2].strip("'")
    for text in ("", "[web]\n"):
        if text:
            (tmp_path / "service.toml").write_text(text, encoding="utf-8")
        answer = runner.files.read(Command(["env", "-C", str(tmp_path), "sh", "-c", question]))
        assert (answer.code, answer.out) == (0, text)


def test_the_watch_repeats_what_changes_nothing_and_needs_no_value(project: Project) -> None:
    """Neither the login with its password, nor what needs the login's token."""
    slot = Slot()
    repeated = smoke.list_repeatable(slot, with_paths(project, "/more=204"), "green")
    assert [request.path for request in repeated] == ["/closed", "/more"]
    assert not Request("/", take={"token": "token"}).is_repeatable
    assert not Request("/", method="POST").is_repeatable


READY = '{"status":"ready"}'
DEGRADED = '{"status":"degraded","checks":{"redis":{"ok":false,"error":"WRONGPASS"}}}'


def say(runner: RecordingRunner, port: int, body: str) -> None:
    runner.reply(f"127.0.0.1:{port}/readyz", Result(0, f"HTTP/1.1 200 OK\r\n\r\n{body}"))


@pytest.mark.parametrize(
    ("live", "new", "is_refused"),
    [
        (READY, READY, False),
        (READY, DEGRADED, True),
        (DEGRADED, DEGRADED, False),
        (DEGRADED, READY, False),
        ("ok", DEGRADED, False),
        (READY, "ok", False),
    ],
)
def test_a_degraded_release_is_refused_beside_one_that_is_ready(
    runner: RecordingRunner, loaded: Project, live: str, new: str, *, is_refused: bool
) -> None:
    say(runner, 8083, live)
    say(runner, 8084, new)
    if not is_refused:
        smoke.check_readiness(runner, loaded, "green", "blue")
        return
    with pytest.raises(Failure, match=r"slot green is degraded \(redis: WRONGPASS\)"):
        smoke.check_readiness(runner, loaded, "green", "blue")


def test_a_process_that_has_just_started_may_still_reach_redis(
    runner: RecordingRunner, loaded: Project
) -> None:
    say(runner, 8083, READY)
    head = "HTTP/1.1 200 OK\r\n\r\n"
    runner.reply(
        "127.0.0.1:8084/readyz",
        lambda: Result(0, head + (READY if runner.now > 2 else DEGRADED)),
    )
    smoke.check_readiness(runner, loaded, "green", "blue")
