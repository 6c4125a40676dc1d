"""`logs.sh` shows the requested lines, and reports an error if it cannot."""

import json

import pytest
from stack.config.project import Project
from stack.failure import USAGE, Failure
from stack.runner import Result
from stack.stories import logs

from tests.scripts.recording import RecordingRunner

ID = "0123456789abcdef"
OTHER = "f" * 16


def line(service: str, second: int, request: str, **more: str) -> str:
    entry = {"ts": f"2026-11-21T10:00:{second:02}.000+00:00", "request_id": request, **more}
    return f"{service}-1  | {json.dumps(entry)}"


LINES = (
    line("worker-blue", 3, ID, action="export_written"),
    line("api-blue", 2, ID),
    line("api-blue", 2, OTHER, message=f"not {ID}"),
    f"postgres-1  | LOG: {ID}",
    line("nginx", 1, ID),
    f"{ID} without a service",
    f'api-blue-1  | ["{ID}"]',
)


@pytest.fixture
def engine(runner: RecordingRunner) -> RecordingRunner:
    runner.reply("config --services", Result(0, "nginx\napi-blue\nworker-blue\n"))
    runner.reply("compose --profile '*' logs", Result(0, "\n".join(LINES) + "\n"))
    return runner


def show(
    runner: RecordingRunner, project: Project, *names: str, lines: int = 50, request: str = ""
) -> list[str]:
    logs.run(runner, project, list(names), lines=lines, request=request)
    return "\n".join(runner.said).splitlines()


def test_every_line_of_one_request_and_no_other_is_shown_in_order_of_time(
    engine: RecordingRunner, loaded: Project
) -> None:
    assert show(engine, loaded, request=ID) == [LINES[4], LINES[1], LINES[0]]


def test_the_lines_of_the_named_services_are_shown_as_they_are(
    engine: RecordingRunner, loaded: Project
) -> None:
    engine.reply("--tail 7 api-blue", Result(0, "one\ntwo\n"))
    assert show(engine, loaded, "api-blue", lines=7) == ["one", "two"]


@pytest.mark.parametrize("request_id", ["a;b", "short", "x" * 65, "../../etc", "0123 4567"])
def test_what_is_not_a_request_id_is_refused(
    engine: RecordingRunner, loaded: Project, request_id: str
) -> None:
    with pytest.raises(Failure, match="is not a request id") as raised:
        show(engine, loaded, request=request_id)
    assert raised.value.code == USAGE


def test_an_unknown_service_is_a_usage_error_that_names_the_known_ones(
    engine: RecordingRunner, loaded: Project
) -> None:
    with pytest.raises(Failure, match="no service is called api") as raised:
        show(engine, loaded, "api")
    assert raised.value.code == USAGE
    assert raised.value.hints == ["one of: api-blue, nginx, worker-blue"]


def test_a_request_that_left_no_line_is_a_failure(engine: RecordingRunner, loaded: Project) -> None:
    with pytest.raises(Failure, match="no line of the last 50") as raised:
        show(engine, loaded, request="a" * 16)
    assert raised.value.code == 1


@pytest.mark.parametrize("part", ["config --services", "compose --profile '*' logs"])
@pytest.mark.parametrize("names", [(), ("nginx",)])
def test_an_engine_that_does_not_answer_is_a_failure_and_not_an_empty_log(
    engine: RecordingRunner, loaded: Project, part: str, names: tuple[str, ...]
) -> None:
    engine.reply(part, Result(1, err="cannot connect to the engine"))
    with pytest.raises(Failure) as raised:
        show(engine, loaded, *names)
    assert raised.value.code == 1
    assert "cannot connect" in f"{raised.value}{raised.value.evidence}"
