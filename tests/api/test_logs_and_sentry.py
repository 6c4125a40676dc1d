"""Log lines have one field scheme; error reports contain no data of the request."""

import asyncio
import json
import logging
import logging.config
from typing import Any

import httpx2
import procrastinate
import psycopg.errors
import pytest
import sentry_sdk
import sqlalchemy.exc
from fastapi import FastAPI, Request
from procrastinate.testing import InMemoryConnector
from procrastinate.worker import Worker
from pydantic import SecretStr
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from api.app import create_app
from api.observing import context
from api.observing.logs import LineFormatter, log_config
from api.observing.sentry import flush_sentry, scrub, start_sentry
from api.storing.database import Database
from api.storing.jobs import queue
from tests.api.settings_for_tests import make_settings


def line(**extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("api.items", logging.INFO, "file.py", 1, "item %s", ("made",), None)
    vars(record).update(extra)
    written: dict[str, Any] = json.loads(LineFormatter("api", "blue", "r-1").format(record))
    return written


def test_a_line_has_the_fixed_fields_then_its_extras() -> None:
    context.request_id.set("request-0001")
    written = line(action="item_created", item="x")
    assert list(written)[:9] == [
        "ts",
        "level",
        "logger",
        "action",
        "message",
        "service",
        "slot",
        "release",
        "request_id",
    ]
    assert written["ts"].endswith("+00:00")
    assert (written["action"], written["message"], written["item"]) == (
        "item_created",
        "item made",
        "x",
    )
    assert (written["service"], written["slot"], written["release"]) == ("api", "blue", "r-1")
    assert written["request_id"] == "request-0001"


def test_noise_of_servers_is_dropped() -> None:
    assert {"color_message", "taskName"}.isdisjoint(line(color_message="\x1b[1m", taskName="t"))


def test_a_record_of_the_queue_carries_the_request_id_of_its_job() -> None:
    job = {
        "id": 7,
        "task_name": "exports.write",
        "attempts": 1,
        "task_kwargs": {"request_id": "request-0007"},
    }
    written = line(job=job)
    assert written["request_id"] == "request-0007"
    assert written["job"] == {"id": 7, "task_name": "exports.write", "attempts": 1}


def test_the_configuration_is_complete_for_gunicorn(capsys: pytest.CaptureFixture[str]) -> None:
    config = log_config(make_settings())
    assert {"gunicorn.error", "gunicorn.access", "uvicorn.error"} <= set(config["loggers"])
    before = logging.root.handlers[:]
    try:
        logging.config.dictConfig(config)
        logging.getLogger("gunicorn.error").info("booted")
        logging.getLogger("gunicorn.access").info("GET /?token=query-secret")
    finally:
        logging.root.handlers[:] = before
        for name in config["loggers"]:
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    out = capsys.readouterr().out
    assert [json.loads(text)["message"] for text in out.splitlines()] == ["booted"]


class Kept(Transport):
    """Stores the reports that Sentry's client would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.extend(part.payload.json or {} for part in envelope)


def fail(message: str) -> RuntimeError:
    """Return an error with a traceback, in which a variable of a frame contains the message."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(message)
    return caught.value


@pytest.fixture
def sent() -> Any:
    transport = Kept()
    settings = make_settings(sentry_dsn=SecretStr("https://key@sentry.invalid/1"))
    start_sentry(settings, transport)
    yield transport.sent
    flush_sentry()
    sentry_sdk.init()


def test_nothing_of_the_request_leaves(sent: list[dict[str, Any]]) -> None:
    authorization = "Bearer header-secret"
    context.request_id.set("request-0002")
    sentry_sdk.set_extra("body", "body-secret")
    sentry_sdk.add_breadcrumb(message="crumb-secret")
    sentry_sdk.get_isolation_scope().set_user({"email": "user-secret"})
    cookie = "session=cookie-secret"
    error = fail(f"GET /x?token=query-secret {authorization} Cookie: {cookie}\nDETAIL: row-secret")
    address = "https://h/p?q=arg-secret"
    logging.getLogger("api.x").error(
        "failed %s",
        address,
        exc_info=error,
        extra={"headers": "extra-secret", "password": "pw-secret"},
    )
    assert len(sent) == 1
    text = json.dumps(sent)
    # The source lines around the error are code and may contain these words; values must not.
    for value in sent[0]["exception"]["values"]:
        value.pop("stacktrace")
    text = json.dumps(sent)
    assert "secret" not in text
    assert sent[0]["tags"]["request_id"] == "request-0002"
    assert sent[0]["release"] == "r-1"
    assert sent[0]["environment"] == "production"


def test_local_variables_do_not_leave(sent: list[dict[str, Any]]) -> None:
    def fail_holding(text: str) -> None:
        raise RuntimeError(len(text))

    with pytest.raises(RuntimeError) as caught:
        fail_holding("-".join(("local", "secret")))
    logging.getLogger("api.x").error("failed", exc_info=caught.value)
    frames = [
        frame for value in sent[0]["exception"]["values"] for frame in value["stacktrace"]["frames"]
    ]
    assert frames
    assert not [frame for frame in frames if frame.get("vars")]


def test_without_a_dsn_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(sentry_sdk, "init", lambda **options: started.append(options))
    start_sentry(make_settings())
    assert not started


def test_scrubbing_keeps_the_first_line_without_what_was_sent() -> None:
    text = scrub(
        "duplicate key value violates unique constraint\nDETAIL: Key (email)=(a@example.org)"
    )
    assert text == "duplicate key value violates unique constraint"


@pytest.mark.parametrize(
    "name", ["password", "ops_password", "refresh_token", "X-CSRF-Token", "token_key", "Cookie"]
)
def test_scrubbing_knows_a_secret_by_a_part_of_its_name(name: str) -> None:
    assert "7913" not in scrub(f"cannot take {name}=7913")


MARK = str(7_913 * 1000 + 586)  # computed, so that no source line in a report contains it


def canary(place: str) -> str:
    """Return a canary for a part of the request."""
    return f"{place}-{MARK}"


def make_app() -> FastAPI:
    app = create_app(make_settings())

    @app.post("/test/crash")
    async def crash(request: Request) -> None:
        sent = await request.json()
        raise RuntimeError(
            f"cannot use {sent['name']!r} of {request.url}, {request.headers['authorization']}"
        )

    @app.post("/test/lookup")
    async def lookup(request: Request) -> None:
        {}[(await request.json())["name"]]

    @app.post("/test/sql")
    async def sql(request: Request) -> None:
        sent = await request.json()
        origin = psycopg.errors.InvalidTextRepresentation(
            f'invalid input syntax for type uuid: "{sent["name"]}"\n'
            f"DETAIL:  Key (email)=({sent['password']})"
        )
        raise sqlalchemy.exc.DataError(
            "INSERT INTO users ...", dict(sent), origin, hide_parameters=True
        ) from origin

    @app.post("/test/logged")
    async def logged(request: Request) -> None:
        sent = await request.json()
        logging.getLogger("api.test").error(
            "went wrong: %s", sent["name"], extra={"sent": sent, "action": "tested"}
        )

    return app


def ask(path: str) -> int:
    """Send a request with a canary in every part; return the status."""

    async def send() -> int:
        transport = httpx2.ASGITransport(app=make_app())
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            answer = await client.post(
                f"{path}?token={canary('query')}",
                json={"name": canary("body"), "password": canary("password")},
                headers={
                    "Authorization": f"Bearer {canary('token')}",
                    "Cookie": f"session={canary('cookie')}",
                    "X-Api-Key": canary("header"),
                    "X-Request-ID": "request-0003",
                },
            )
        assert MARK not in answer.text
        return answer.status_code

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("path", "status", "kinds"),
    [
        ("/test/crash", 500, ["RuntimeError"]),
        ("/test/lookup", 500, ["KeyError"]),
        ("/test/sql", 500, ["InvalidTextRepresentation", "DataError"]),
        ("/test/logged", 200, []),
    ],
)
def test_a_request_that_fails_is_reported_with_its_id_and_slot_and_none_of_its_content(
    sent: list[dict[str, Any]], path: str, status: int, kinds: list[str]
) -> None:
    assert ask(path) == status
    (report,) = sent
    assert MARK not in json.dumps(report)
    assert report["tags"] == {"request_id": "request-0003", "service": "api", "slot": "blue"}
    assert (report["release"], report["environment"], report["server_name"]) == (
        "r-1",
        "production",
        "api-blue",
    )
    values = report.get("exception", {"values": []})["values"]
    assert [value["type"] for value in values if value["type"] in kinds] == kinds
    assert not {"request", "user", "extra", "breadcrumbs", "contexts", "modules"} & set(report)


def test_the_engine_leaves_parameters_out_of_its_errors() -> None:
    assert Database(make_settings()).engine.sync_engine.hide_parameters


def test_a_job_that_fails_is_reported_with_its_request_and_without_its_arguments(
    sent: list[dict[str, Any]],
) -> None:
    async def work() -> None:
        with queue.replace_connector(InMemoryConnector()):
            app = procrastinate.App(connector=queue.connector)

            @app.task(name="test.fail", queue="test")
            async def fail_with(address: str, request_id: str) -> None:
                raise ValueError(f"no such address: {address!r}")

            async with app.open_async():
                await fail_with.defer_async(address=canary("argument"), request_id="request-0004")
                await Worker(app, queues=["test"], wait=False, install_signal_handlers=False).run()  # type: ignore[no-untyped-call]

    asyncio.run(work())
    (report,) = [report for report in sent if "exception" in report]
    assert MARK not in json.dumps(sent)
    assert report["logentry"]["message"] == "job failed: test.fail"
    assert report["tags"]["request_id"] == "request-0004"
    assert report["exception"]["values"][-1]["type"] == "ValueError"


def test_an_empty_dsn_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(sentry_sdk, "init", lambda **options: started.append(options))
    start_sentry(make_settings(sentry_dsn=SecretStr("")))
    assert not started
